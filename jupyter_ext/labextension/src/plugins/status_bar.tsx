import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';

import { CommandIDs } from '../commands';
import { remoteIcon } from '../icons';
import { StatusModel } from '../model/status';
import { IRemoteExec } from '../tokens';
import { useModel } from '../view/hooks';

/** The count of running jobs in the status bar. */
export const statusBar: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:status-bar',
  description: 'The count of running jobs in the status bar.',
  autoStart: true,
  requires: [IRemoteExec],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, { status }: IRemoteExec, bar: IStatusBar | null) => {
    if (bar !== null) {
      const show = () => void app.commands.execute(CommandIDs.showPanel);
      const item = ReactWidget.create(<Count model={status} onClick={show} />);
      item.addClass('jp-RemoteExec-status');
      bar.registerStatusItem('remote-exec:status-bar', { item, align: 'left', rank: 10 });
    }
  }
};

function Count({ model, onClick }: { model: StatusModel; onClick: () => void }): React.JSX.Element {
  useModel(model);
  const { status, problem } = model;
  const running = status?.running ?? 0;
  const queued = status?.queued ?? 0;
  const words = problem?.message ?? `${running} remote jobs run, ${queued} wait`;
  return (
    <button
      type="button"
      className="jp-RemoteExec-statusButton"
      title={words}
      aria-label={words}
      onClick={onClick}
    >
      <remoteIcon.react tag="span" width="14px" height="14px" />
      {problem ? '–' : running}
      {queued > 0 && ` + ${queued}`}
    </button>
  );
}
