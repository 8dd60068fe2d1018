import { isCell } from '../format';
import { Job, JobId } from '../types';

/** What a view can have done to jobs. */
export interface JobActions {
  readonly open: (id: JobId) => void;
  readonly cancel: (id: JobId) => void;
  /** Cancel it once the user has confirmed that. */
  readonly askToCancel: (id: JobId) => void;
  readonly rerun: (id: JobId) => void;
  readonly copyId: (id: JobId) => void;
  readonly attach: (id: JobId) => void;
  readonly download: (id: JobId) => void;
  readonly shell: (id: JobId) => void;
  /** Whether this Jupyter has terminals, where a shell can be. */
  readonly hasTerminals: () => boolean;
  /** Whether there is a notebook to attach jobs in. */
  readonly canAttach: () => boolean;
  /** Have a function called when that changes, until the returned one is called. */
  readonly onChange: (listener: () => void) => () => void;
}

/** Whether a job can still be cancelled. */
export function isActive(job: Job): boolean {
  return job.state === 'queued' || job.state === 'running';
}

/** Return why a job cannot be attached in a notebook; empty where it can. */
export function whyNoAttach(job: Job, actions: JobActions): string {
  if (isCell(job)) {
    return 'it is a cell, whose names are for its notebook alone';
  }
  if (job.kind !== 'job') {
    return 'its caller waits for it; durable jobs can be attached';
  }
  return actions.canAttach() ? '' : 'no notebook is open';
}

/** Return why a job cannot be run again, by what it is; empty where it can, if all is kept that it needs. */
export function whyNoRerun(job: Job): string {
  if (isCell(job)) {
    return 'it is a cell: run it again in its notebook';
  }
  return job.kind === 'job' ? '' : 'its caller waits for it; durable jobs can be run again';
}

/** Return why no shell can be opened where a job runs; empty where one can. */
export function whyNoShell(job: Job, actions: JobActions): string {
  if (!actions.hasTerminals()) {
    return 'this Jupyter has no terminals';
  }
  return job.state === 'running' ? '' : job.state === 'queued' ? 'it has not begun' : 'it has ended';
}
