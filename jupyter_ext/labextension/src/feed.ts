import { DisposableDelegate, IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { At, Looks, Problem, Sent } from './types';

const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;

/** What is done with what comes. */
export interface Eyes<A extends At> {
  snapshot(value: Looks[A]['snapshot']): void;
  changes?(value: Looks[A]['changes']): void;
  problem(problem: Problem): void;
}

export type Connection = 'connecting' | 'open' | 'closed';

interface Look {
  at: At;
  ask: () => object;
  eyes: Eyes<At>;
  sequence: number; // of the last frame; 0: none yet
}

/** What a feed needs of a websocket. */
export type Socket = Pick<WebSocket, 'onopen' | 'onmessage' | 'onclose' | 'send' | 'close'>;

/**
 * The page's one websocket: it is open while something looks at something.
 *
 * A look gets a number of its own each time it is said, so nothing that was said before is taken for its answer. Where
 * a frame is missing the look is said again; after a disconnection all are.
 */
export class Feed {
  /**
   * @param open - opens a websocket
   * @param diagnose - asked why there is no connection
   */
  constructor(
    private readonly open: () => Socket,
    private readonly diagnose: () => Promise<Problem>
  ) {}

  get connection(): Connection {
    return this._connection;
  }

  get connectionChanged(): ISignal<this, Connection> {
    return this._connectionChanged;
  }

  /**
   * Look at something until the returned object is disposed of.
   *
   * @param at - what kind
   * @param ask - returns what is looked at; called again when the connection had been lost
   * @param eyes - what is done with what comes
   */
  look<A extends At>(at: A, ask: () => Looks[A]['ask'], eyes: Eyes<A>): IDisposable {
    const look: Look = { at, ask, eyes, sequence: 0 };
    this.say(look);
    return new DisposableDelegate(() => this.leave(look));
  }

  private say(look: Look): void {
    this.forget(look);
    const id = ++this.last;
    look.sequence = 0;
    this.looks.set(id, look);
    if (this.socket === null) {
      this.connect();
    } else {
      this.send({ type: 'look', id, at: look.at, ...look.ask() });
    }
  }

  private leave(look: Look): void {
    this.forget(look);
    if (this.looks.size === 0) {
      clearTimeout(this.timer);
      if (this.socket !== null) {
        this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
        this.socket.close();
        this.socket = null;
        this.set('closed');
      }
    }
  }

  private forget(look: Look): void {
    for (const [id, other] of this.looks) {
      if (other === look) {
        this.looks.delete(id);
        this.send({ type: 'leave', id });
      }
    }
  }

  private send(message: object): void {
    if (this._connection === 'open') {
      this.socket?.send(JSON.stringify(message));
    }
  }

  private connect(): void {
    clearTimeout(this.timer);
    const socket = this.open();
    this.socket = socket;
    this.set('connecting');
    socket.onopen = () => {
      this.delay = FIRST_DELAY;
      this.set('open');
      for (const [id, look] of this.looks) {
        look.sequence = 0;
        this.send({ type: 'look', id, at: look.at, ...look.ask() });
      }
    };
    socket.onmessage = (event: MessageEvent<unknown>) => this.take(JSON.parse(String(event.data)) as Sent);
    socket.onclose = () => {
      this.socket = null;
      this.set('closed');
      if (this.looks.size > 0) {
        void this.wait();
      }
    };
  }

  private async wait(): Promise<void> {
    const delay = this.delay * (0.75 + Math.random() / 2);
    this.delay = Math.min(2 * this.delay, LONGEST_DELAY);
    this.timer = setTimeout(() => {
      if (this.socket === null && this.looks.size > 0) {
        this.connect();
      }
    }, delay);
    const problem = await this.diagnose();
    if (this._connection !== 'open') {
      for (const look of [...this.looks.values()]) {
        look.eyes.problem(problem);
      }
    }
  }

  private take(sent: Sent): void {
    const look = this.looks.get(sent.id);
    if (look === undefined) {
      return; // it was left in the meantime
    }
    if (sent.type === 'snapshot') {
      look.sequence = sent.sequence;
      look.eyes.snapshot(sent.value as never);
      return;
    }
    const follows = sent.sequence === look.sequence + 1;
    look.sequence = sent.sequence;
    if (sent.type === 'problem') {
      look.eyes.problem(sent.problem ?? { message: 'unknown', hint: '', status: 500 });
    } else if (follows) {
      look.eyes.changes?.(sent.value as never);
    } else {
      this.say(look);
    }
  }

  private set(connection: Connection): void {
    if (connection !== this._connection) {
      this._connection = connection;
      this._connectionChanged.emit(connection);
    }
  }

  private looks = new Map<number, Look>();
  private last = 0;
  private socket: Socket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private delay = FIRST_DELAY;
  private _connection: Connection = 'closed';
  private _connectionChanged = new Signal<this, Connection>(this);
}
