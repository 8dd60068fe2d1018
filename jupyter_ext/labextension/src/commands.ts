import { CommandRegistry } from '@lumino/commands';

import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { JobId } from './types';
import { JobActions } from './view/actions';

/** The commands of all features. Those of a job take `host` and `name`; without them it is the selected one. */
export const CommandIDs = {
  showPanel: 'remote-exec:show-panel',
  open: 'remote-exec:open-job',
  cancel: 'remote-exec:cancel',
  rerun: 'remote-exec:run-again',
  copyId: 'remote-exec:copy-name',
  attach: 'remote-exec:attach',
  download: 'remote-exec:download-log',
  shell: 'remote-exec:open-shell'
} as const;

/** Of Jupyter's: it is there where the server has terminals. */
export const OPEN_TERMINAL = 'terminal:open';

/** Return what views can do, by commands. */
export function actionsOf(commands: CommandRegistry): JobActions {
  const by =
    (command: string, more: ReadonlyPartialJSONObject = {}) =>
    (id: JobId) =>
      void commands.execute(command, { host: id.host, name: id.name, ...more });
  return {
    open: by(CommandIDs.open),
    cancel: by(CommandIDs.cancel),
    askToCancel: by(CommandIDs.cancel, { ask: true }),
    rerun: by(CommandIDs.rerun),
    copyId: by(CommandIDs.copyId),
    attach: by(CommandIDs.attach),
    download: by(CommandIDs.download),
    shell: by(CommandIDs.shell),
    hasTerminals: () => commands.hasCommand(OPEN_TERMINAL),
    canAttach: () =>
      commands.hasCommand(CommandIDs.attach) && commands.isEnabled(CommandIDs.attach, { name: '-' }),
    onChange: listener => {
      const onCommand = (_: CommandRegistry, { id }: CommandRegistry.ICommandChangedArgs) => {
        if (id === CommandIDs.attach) {
          listener();
        }
      };
      commands.commandChanged.connect(onCommand);
      return () => commands.commandChanged.disconnect(onCommand);
    }
  };
}

/** Return the job that a command's arguments name. */
export function namedJob({ host, name }: ReadonlyPartialJSONObject): JobId | null {
  return typeof name === 'string' && name ? { host: typeof host === 'string' ? host : '', name } : null;
}
