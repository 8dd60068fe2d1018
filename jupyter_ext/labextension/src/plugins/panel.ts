import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { SidePanel } from '@jupyterlab/ui-components';
import { Message, MessageLoop } from '@lumino/messaging';
import { AccordionPanel, Widget } from '@lumino/widgets';

import { CommandIDs } from '../commands';
import { remoteIcon } from '../icons';
import { IRemotePanel } from '../tokens';

const ID = 'remote-exec-panel';

/** The panel: when it is activated, the search field has the keyboard. */
class RemotePanel extends SidePanel {
  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    // afterwards: the palette gives the keyboard back to where it was
    requestAnimationFrame(() => this.node.querySelector<HTMLElement>('input[type=search]')?.focus());
  }
}

/** The panel in the left area; other plugins fill it. */
export const panel: JupyterFrontEndPlugin<IRemotePanel> = {
  id: 'remote-exec:panel',
  description: 'The panel in the left area.',
  autoStart: true,
  provides: IRemotePanel,
  optional: [ILayoutRestorer, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ): IRemotePanel => {
    const side = new RemotePanel();
    side.id = ID;
    side.addClass('jp-RemoteExec-panel');
    side.title.icon = remoteIcon;
    side.title.caption = 'Remote jobs';
    side.node.setAttribute('role', 'region');
    side.node.setAttribute('aria-label', 'Remote jobs');
    // what stands above the sections may grow and shrink, of which nobody tells them
    const resized = () => MessageLoop.postMessage(side.content, Widget.ResizeMessage.UnknownSize);
    new ResizeObserver(resized).observe(side.content.node);
    app.shell.add(side, 'left', { rank: 350, type: 'Remote jobs' });
    restorer?.add(side, ID);
    app.commands.addCommand(CommandIDs.showPanel, {
      label: 'Show Remote Jobs',
      icon: remoteIcon,
      execute: () => app.shell.activateById(ID)
    });
    void app.restored.then(() => {
      if (side.content instanceof AccordionPanel) {
        side.content.setRelativeSizes([2, 1]);
      }
    });
    palette?.addItem({ command: CommandIDs.showPanel, category: 'Remote' });
    return { panel: side };
  }
};
