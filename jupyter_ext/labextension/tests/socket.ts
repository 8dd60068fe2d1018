import { Feed, Socket } from '../src/feed';
import { Sent } from '../src/types';

/** The server's end of a page's websocket. */
export class Server {
  readonly sockets: FakeSocket[] = [];
  readonly feed = new Feed(
    () => {
      const socket = new FakeSocket();
      this.sockets.push(socket);
      return socket;
    },
    () => Promise.resolve({ message: 'down', hint: '', status: 0 })
  );

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (last === undefined) {
      throw new Error('nobody has connected');
    }
    return last;
  }
}

export class FakeSocket implements Socket {
  onopen: Socket['onopen'] = null;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  readonly said: Record<string, unknown>[] = [];
  isClosed = false;

  send(text: string): void {
    this.said.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.isClosed = true;
  }

  accept(): void {
    this.onopen?.call(this as unknown as WebSocket, {} as Event);
  }

  /** The number of the last look that was said. */
  get id(): number {
    return Number(this.said.filter(message => message['type'] === 'look').at(-1)?.['id']);
  }

  tell(type: Sent['type'], sequence: number, value: unknown, id = this.id): void {
    const sent = { type, id, at: 'jobs', sequence, value, problem: null };
    this.onmessage?.call(this as unknown as WebSocket, { data: JSON.stringify(sent) } as MessageEvent);
  }

  break(): void {
    this.onclose?.call(this as unknown as WebSocket, {} as CloseEvent);
  }
}
