import { ISignal, Signal } from '@lumino/signaling';

import { Feed } from '../feed';
import { Job, Status } from '../types';
import { FedModel } from './fed';

/** How many jobs run, and which have ended: always watched, by the status bar and for notifications. */
export class StatusModel extends FedModel {
  constructor(feed: Feed) {
    super(feed);
    feed.look('status', () => ({}), {
      snapshot: status => {
        this.status = status;
        this.problem = null;
        this.tell();
        for (const job of status.ended) {
          this._ended.emit(job);
        }
      },
      problem: problem => this.fail(problem)
    });
  }

  status: Status | null = null;

  /** Emitted once for each job that has ended. */
  get ended(): ISignal<this, Job> {
    return this._ended;
  }

  private _ended = new Signal<this, Job>(this);
}
