import { IDisposable } from '@lumino/disposable';

import { Feed } from '../feed';
import { JobDetail, JobId, Problem } from '../types';
import { LogModel } from './log';
import { Model } from './signalling';

/** One job with its log, kept up to date while somebody watches. */
export class JobModel extends Model {
  constructor(
    private readonly feed: Feed,
    readonly id: JobId
  ) {
    super();
    feed.connectionChanged.connect(this.tell, this);
  }

  readonly log = new LogModel();
  detail: JobDetail | null = null;
  problem: Problem | null = null;

  get isConnected(): boolean {
    return this.feed.connection === 'open';
  }

  watch(): void {
    if (this.looks.length > 0) {
      return;
    }
    const { log } = this;
    this.looks.push(
      this.feed.look('job', () => this.id, {
        snapshot: detail => {
          this.detail = detail;
          this.problem = null;
          this.tell();
        },
        problem: problem => {
          this.problem = problem;
          this.tell();
        }
      })
    );
    if (!log.ended) {
      this.looks.push(
        this.feed.look('logs', () => ({ ...this.id, from: log.next }), {
          snapshot: piece => log.add(piece),
          changes: piece => log.add(piece),
          problem: problem => log.fail(problem)
        })
      );
    }
  }

  rest(): void {
    this.looks.splice(0).forEach(look => look.dispose());
  }

  dispose(): void {
    this.rest();
    this.feed.connectionChanged.disconnect(this.tell, this);
  }

  private looks: IDisposable[] = [];
}
