import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { CommandIDs } from '../commands';
import { duration, elapsed, titleOf } from '../format';
import { IRemoteExec } from '../tokens';

const ID = 'remote-exec:notifications';

/** Says so when a long job has ended. */
export const notifications: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Says so when a long job has ended.',
  autoStart: true,
  requires: [IRemoteExec],
  optional: [ISettingRegistry],
  activate: async (app: JupyterFrontEnd, { status }: IRemoteExec, registry: ISettingRegistry | null) => {
    const settings = await registry?.load(ID);
    status.ended.connect((_, job) => {
      const seconds = elapsed(job, Date.now() / 1000) ?? 0;
      const least = Number(settings?.composite['leastSeconds'] ?? 60);
      if (least < 0 || seconds < least || job.state === 'cancelled') {
        return;
      }
      const text = `${titleOf(job)} ${job.state} after ${duration(seconds)}`;
      const { host, name } = job;
      const open = {
        label: 'Open',
        callback: () => void app.commands.execute(CommandIDs.open, { host, name })
      };
      if (job.state === 'failed') {
        Notification.error([text, job.summary].filter(Boolean).join('\n'), {
          autoClose: false,
          actions: [open]
        });
      } else {
        Notification.success(text, { autoClose: 10_000, actions: [open] });
      }
    });
  }
};
