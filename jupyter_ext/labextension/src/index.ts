import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Widget } from '@lumino/widgets';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:jobs',
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    const panel = new Widget();
    panel.id = 'remote-exec-jobs';
    panel.title.caption = 'Remote jobs';
    panel.node.textContent = 'hello';
    app.shell.add(panel, 'left');
  }
};
export default [plugin];
