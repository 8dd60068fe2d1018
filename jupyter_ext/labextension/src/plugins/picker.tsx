import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, IToolbarWidgetRegistry, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import * as React from 'react';

import { NotebookDefault } from '../model/notebook_default';
import { IRemoteExec, IRemotePanel } from '../tokens';
import { Problem } from '../types';
import { Picker } from '../view/picker';

/** The notebook's default instance type, picked in the notebook's toolbar and in the panel. */
export const picker: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:picker',
  description: "The notebook's default instance type.",
  autoStart: true,
  requires: [IRemoteExec, INotebookTracker],
  optional: [IRemotePanel, IToolbarWidgetRegistry],
  activate: (
    _app: JupyterFrontEnd,
    { requests }: IRemoteExec,
    notebooks: INotebookTracker,
    side: IRemotePanel | null,
    toolbars: IToolbarWidgetRegistry | null
  ) => {
    const defaults = new WeakMap<NotebookPanel, NotebookDefault>();
    const defaultOf = (panel: NotebookPanel) => {
      let model = defaults.get(panel);
      if (model === undefined) {
        const made = (model = new NotebookDefault(panel.context));
        defaults.set(panel, made);
        panel.disposed.connect(() => made.dispose());
      }
      return model;
    };
    // its place is in the settings: see schema/picker.json
    toolbars?.addFactory<NotebookPanel>('Notebook', 'remote-exec-instance-type', panel => {
      const widget = ReactWidget.create(
        <Picker model={defaultOf(panel)} requests={requests} explain={explain} />
      );
      widget.addClass('jp-RemoteExec-toolbarPicker');
      widget.addClass('jp-RemoteExec');
      return widget;
    });
    const header = ReactWidget.create(
      <UseSignal signal={notebooks.currentChanged}>
        {() => {
          const panel = notebooks.currentWidget;
          return panel ? <Picker key={panel.id} model={defaultOf(panel)} requests={requests} /> : <></>;
        }}
      </UseSignal>
    );
    header.addClass('jp-RemoteExec');
    side?.panel.header.addWidget(header);
  }
};

function explain(title: string, { message, hint }: Problem): void {
  const body = (
    <div className="jp-RemoteExec">
      <p>{message}</p>
      {hint && <p>{hint}</p>}
    </div>
  );
  void showDialog({ title, body, buttons: [Dialog.okButton({ label: 'Close' })] });
}
