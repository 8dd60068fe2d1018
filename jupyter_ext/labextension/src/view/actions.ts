import { Job, JobId } from '../types';

/** What a view can have done to jobs. */
export interface JobActions {
  readonly open: (id: JobId) => void;
  readonly cancel: (id: JobId) => void;
  readonly rerun: (id: JobId) => void;
  readonly copyId: (id: JobId) => void;
  readonly attach: (id: JobId) => void;
  readonly download: (id: JobId) => void;
  /** Whether there is a notebook to attach jobs in. */
  readonly canAttach: () => boolean;
}

/** Whether a job can still be cancelled. */
export function isActive(job: Job): boolean {
  return job.state === 'queued' || job.state === 'running';
}
