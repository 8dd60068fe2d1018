import { Feed } from '../feed';
import { Problem } from '../types';
import { Model } from './signalling';

/** Something that the server's frames keep up to date. */
export abstract class FedModel extends Model {
  constructor(protected readonly feed: Feed) {
    super();
    feed.connectionChanged.connect(this.tell, this);
  }

  /** Why it cannot be told, or is not up to date. */
  problem: Problem | null = null;

  /** Whether what is shown is up to date. */
  get isLive(): boolean {
    return this.feed.connection === 'open' && this.problem === null;
  }

  protected fail(problem: Problem): void {
    this.problem = problem;
    this.tell();
  }
}
