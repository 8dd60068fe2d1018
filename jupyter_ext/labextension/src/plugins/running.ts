import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { IRunningSessionManagers, IRunningSessions } from '@jupyterlab/running';
import { Signal } from '@lumino/signaling';

import { CommandIDs } from '../commands';
import { elapsedText, titleOf } from '../format';
import { remoteIcon } from '../icons';
import { StatusModel } from '../model/status';
import { told } from '../requests';
import { IRemoteExec } from '../tokens';
import { Job, Status } from '../types';

const SETTLE_MILLISECONDS = 500;

/** Jobs that run or wait, among JupyterLab's own list of what runs. */
export const running: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:running',
  description: "Jobs that run or wait, in JupyterLab's Running panel.",
  autoStart: true,
  requires: [IRemoteExec],
  optional: [IRunningSessionManagers],
  activate: (app: JupyterFrontEnd, remote: IRemoteExec, managers: IRunningSessionManagers | null) => {
    if (managers !== null) {
      managers.add(new RunningJobs(app, remote));
    }
  }
};

class RunningJobs implements IRunningSessions.IManager {
  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly remote: IRemoteExec
  ) {
    let before: Status | null = null;
    const onStatus = ({ status }: StatusModel) => {
      if (status !== before) {
        before = status;
        this.timer ??= setTimeout(() => this.refreshRunning(), SETTLE_MILLISECONDS);
      }
    };
    remote.status.changed.connect(onStatus);
    onStatus(remote.status);
  }

  readonly name = 'Remote jobs';
  readonly shutdownLabel = 'Cancel';
  readonly shutdownAllLabel = 'Cancel All';

  get shutdownAllConfirmationText(): string {
    const all =
      this.count === 1 ? 'the one job that runs or waits' : `all ${this.count} jobs that run or wait`;
    return `Cancel ${all}, on all hosts and of all notebooks?`;
  }

  readonly runningChanged = new Signal<this, unknown>(this);

  running(): IRunningSessions.IRunningItem[] {
    const items: IRunningSessions.IRunningItem[] = this.jobs.map(job => ({
      label: () => titleOf(job),
      detail: () => [job.state, elapsedText(job, Date.now() / 1000)].filter(Boolean).join(' '),
      icon: () => remoteIcon,
      open: () => this.execute(CommandIDs.open, job),
      shutdown: () => this.execute(CommandIDs.cancel, job)
    }));
    const others = this.count - this.jobs.length;
    if (others > 0) {
      items.push({
        label: () => `${others} more`,
        labelTitle: () => 'Show all in the panel of remote jobs',
        icon: () => remoteIcon,
        open: () => void this.app.commands.execute(CommandIDs.showPanel)
      });
    }
    return items;
  }

  refreshRunning(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.remote.requests.jobs({ states: ['running', 'queued'] }).then(
      ({ jobs, total, counts, more }) => {
        this.jobs = jobs;
        this.count = more ? Math.max(total, counts.running + counts.queued) : total;
        this.runningChanged.emit(undefined);
      },
      () => undefined // our own panel says what is wrong
    );
  }

  shutdownAll(): void {
    this.remote.requests.cancelAll().then(
      ({ problems }) => problems.length && Notification.error(problems.join('\n'), { autoClose: 8000 }),
      (error: unknown) => Notification.error(told(error), { autoClose: 8000 })
    );
  }

  private execute(command: string, { host, name }: Job): void {
    void this.app.commands.execute(command, { host, name });
  }

  private jobs: Job[] = []; // the newest
  private count = 0; // of all
  private timer: ReturnType<typeof setTimeout> | undefined;
}
