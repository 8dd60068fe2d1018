import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, Dialog, ICommandPalette, Notification, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import {
  copyIcon,
  downloadIcon,
  LabIcon,
  linkIcon,
  runIcon,
  stopIcon,
  terminalIcon
} from '@jupyterlab/ui-components';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { CommandIDs, namedJob, OPEN_TERMINAL } from '../commands';
import { LOAD_EXTENSION } from '../model/notebook_default';
import { told } from '../requests';
import { IRemoteExec } from '../tokens';
import { JobId } from '../types';
import { isActive } from '../view/actions';

/** What can be done with a job: from the list, its page, the context menu and the palette. */
export const actions: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:actions',
  description: 'What can be done with a job.',
  autoStart: true,
  requires: [IRemoteExec],
  optional: [INotebookTracker, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    remote: IRemoteExec,
    notebooks: INotebookTracker | null,
    palette: ICommandPalette | null
  ) => {
    const { commands } = app;
    const { requests } = remote;

    /** What the row that was clicked says of its job. */
    const clicked = (args: ReadonlyPartialJSONObject) =>
      args['clicked']
        ? app.contextMenuHitTest(node => node.dataset['job'] !== undefined)?.dataset
        : undefined;
    /** The job that is told, whose row was clicked, or that is selected. */
    const jobOf = (args: ReadonlyPartialJSONObject): JobId | null => {
      const named = namedJob(args);
      if (named !== null) {
        return named;
      }
      const { job, host } = clicked(args) ?? {};
      return job !== undefined && host !== undefined ? { host, name: job } : remote.jobs.selected;
    };
    const add = (
      id: string,
      label: string,
      icon: LabIcon | undefined,
      act: (job: JobId, args: ReadonlyPartialJSONObject) => Promise<void> | void,
      can: (args: ReadonlyPartialJSONObject) => boolean = () => true
    ) => {
      commands.addCommand(id, {
        label,
        icon,
        isEnabled: args => jobOf(args) !== null && can(args),
        execute: async args => {
          const job = jobOf(args);
          try {
            await (job && act(job, args));
          } catch (error) {
            Notification.error(told(error), { autoClose: 8000 });
          }
        }
      });
      palette?.addItem({ command: id, category: 'Remote' });
    };

    add(
      CommandIDs.cancel,
      'Cancel the Job',
      stopIcon,
      async (job, args) => {
        if (args['ask'] && !(await isSure(job))) {
          return;
        }
        const { cancelled } = await requests.cancel(job);
        if (!cancelled) {
          Notification.info(`${job.name} had ended already.`, { autoClose: 4000 });
        }
      },
      args => {
        const state = clicked(args)?.['state'] ?? remote.jobs.selected?.state;
        return namedJob(args) !== null || state === 'running' || state === 'queued';
      }
    );
    /** Whether it is more than a call that somebody waits for, as far as that is known. */
    const isDurable = (args: ReadonlyPartialJSONObject) =>
      namedJob(args) !== null || (clicked(args)?.['kind'] ?? remote.jobs.selected?.kind) === 'job';
    add(
      CommandIDs.rerun,
      'Run the Job Again',
      runIcon,
      async job => {
        const again = await requests.rerun(job);
        await commands.execute(CommandIDs.open, { ...again });
      },
      isDurable
    );
    add(CommandIDs.copyId, "Copy the Job's Name", copyIcon, job => Clipboard.copyToSystem(job.name));
    add(CommandIDs.download, "Download the Job's Log", downloadIcon, async job =>
      save(await requests.download(job), `${job.name}.log`)
    );
    if (notebooks !== null) {
      const attach = async (id: JobId) => {
        const { job } = await requests.job(id);
        const panel = notebooks.currentWidget;
        if (panel) {
          panel.sessionContext.session?.kernel?.requestExecute({ code: LOAD_EXTENSION, silent: true });
          NotebookActions.insertBelow(panel.content);
          // what runs is shown as it goes on, and keeps the kernel from nothing
          const how = isActive(job) ? 'attach' : 'result';
          panel.content.activeCell?.model.sharedModel.setSource(`%remote ${how} ${job.name}`);
          app.shell.activateById(panel.id);
        }
      };
      add(
        CommandIDs.attach,
        'Attach the Job in the Notebook',
        linkIcon,
        attach,
        args => notebooks.currentWidget !== null && isDurable(args)
      );
      notebooks.currentChanged.connect(() => commands.notifyCommandChanged(CommandIDs.attach));
    }
    add(
      CommandIDs.shell,
      'Open a Shell Where the Job Runs',
      terminalIcon,
      async job => {
        const name = await requests.shell(job);
        await commands.execute(OPEN_TERMINAL, { name });
      },
      args => {
        const state = clicked(args)?.['state'] ?? remote.jobs.selected?.state;
        return commands.hasCommand(OPEN_TERMINAL) && (namedJob(args) !== null || state === 'running');
      }
    );
  }
};

async function isSure({ name }: JobId): Promise<boolean> {
  const { button } = await showDialog({
    title: `Cancel ${name}?`,
    body: 'What it has not saved is lost.',
    buttons: [Dialog.cancelButton({ label: 'Keep It' }), Dialog.warnButton({ label: 'Cancel the Job' })]
  });
  return button.accept;
}

function save(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
