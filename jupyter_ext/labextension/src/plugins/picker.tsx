import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import { DisposableDelegate, IDisposable } from '@lumino/disposable';
import * as React from 'react';

import { NotebookDefault } from '../model/notebook_default';
import { Requests } from '../requests';
import { IRemoteExec, IRemotePanel } from '../tokens';
import { Picker } from '../view/picker';

/** The notebook's default instance type, picked in the notebook's toolbar and in the panel. */
export const picker: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:picker',
  description: "The notebook's default instance type.",
  autoStart: true,
  requires: [IRemoteExec, INotebookTracker],
  optional: [IRemotePanel],
  activate: (
    app: JupyterFrontEnd,
    { requests }: IRemoteExec,
    notebooks: INotebookTracker,
    side: IRemotePanel | null
  ) => {
    const defaults = new WeakMap<NotebookPanel, NotebookDefault>();
    app.docRegistry.addWidgetExtension('Notebook', {
      createNew: (panel: NotebookPanel) => inToolbar(panel, requests, defaults)
    });
    const header = ReactWidget.create(
      <UseSignal signal={notebooks.currentChanged}>
        {() => {
          const panel = notebooks.currentWidget;
          const model = panel && defaults.get(panel);
          return model ? <Picker key={panel.id} model={model} requests={requests} isLabelled /> : <></>;
        }}
      </UseSignal>
    );
    header.addClass('jp-RemoteExec');
    side?.panel.header.addWidget(header);
  }
};

function inToolbar(
  panel: NotebookPanel,
  requests: Requests,
  defaults: WeakMap<NotebookPanel, NotebookDefault>
): IDisposable {
  const model = new NotebookDefault(panel.context);
  defaults.set(panel, model);
  const widget = ReactWidget.create(<Picker model={model} requests={requests} />);
  widget.addClass('jp-RemoteExec');
  panel.toolbar.insertBefore('spacer', 'remote-exec-instance-type', widget);
  return new DisposableDelegate(() => {
    widget.dispose();
    model.dispose();
  });
}
