import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import {
  Cancelled,
  CancelledAll,
  InstanceTypes,
  JobDetail,
  JobId,
  Jobs,
  JobsQuery,
  Pool,
  Problem,
  Rerun,
  Shell,
  Status
} from './types';

const NAMESPACE = 'jupyter_ext';

/** A request that the server answered with an error, or that did not reach it (`status` 0). */
export class RequestError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

/** Return what is wrong. */
export function problemOf(error: unknown): Problem {
  if (error instanceof RequestError) {
    return error.problem;
  }
  return { message: error instanceof Error ? error.message : String(error), hint: '', status: 0 };
}

/** Say an error in a sentence or two. */
export function told(error: unknown): string {
  const { message, hint } = problemOf(error);
  return [message, hint].filter(Boolean).join('\n');
}

/** The server extension's REST side; all of it goes out with Jupyter's own token and XSRF header. */
export class Requests {
  constructor(readonly settings: ServerConnection.ISettings) {}

  status(): Promise<Status> {
    return this.ask('GET', 'status');
  }

  jobs(query: Partial<JobsQuery>): Promise<Jobs> {
    const parameters: Record<string, string> = {};
    for (const [name, value] of Object.entries(query)) {
      parameters[name] = Array.isArray(value) ? value.join(',') : String(value);
    }
    return this.ask('GET', 'jobs', parameters);
  }

  job(id: JobId): Promise<JobDetail> {
    return this.ask('GET', `jobs/${encodeURIComponent(id.name)}`, { host: id.host });
  }

  cancel(id: JobId): Promise<Cancelled> {
    return this.ask('POST', `jobs/${encodeURIComponent(id.name)}/cancel`, { host: id.host });
  }

  /** Have all stopped that runs or waits, on all hosts that are connected. */
  cancelAll(): Promise<CancelledAll> {
    return this.ask('POST', 'cancel-all');
  }

  rerun(id: JobId): Promise<Rerun> {
    return this.ask('POST', `jobs/${encodeURIComponent(id.name)}/rerun`, { host: id.host });
  }

  /** Have a terminal of Jupyter's opened where a job runs; return its name. */
  async shell(id: JobId): Promise<string> {
    const path = `jobs/${encodeURIComponent(id.name)}/shell`;
    return (await this.ask<Shell>('POST', path, { host: id.host })).terminal;
  }

  /** Return all that is kept of a job's log. */
  async download(id: JobId): Promise<Blob> {
    const parameters = { host: id.host, download: '1' };
    return (await this.send('GET', `jobs/${encodeURIComponent(id.name)}/logs`, parameters)).blob();
  }

  keep(host: string, pool: string, seconds: number): Promise<Pool> {
    return this.ask('POST', `pools/${encodeURIComponent(pool)}/keep`, { host }, { seconds });
  }

  async release(host: string, pool: string): Promise<void> {
    await this.ask('POST', `pools/${encodeURIComponent(pool)}/release`, { host });
  }

  instanceTypes(notebook: string): Promise<InstanceTypes> {
    return this.ask('GET', 'instance-types', { path: notebook });
  }

  /** Return the address of the websocket. */
  changesUrl(): string {
    const url = URLExt.join(this.settings.wsUrl, NAMESPACE, 'changes');
    const { token, appendToken } = this.settings;
    return appendToken && token ? `${url}?token=${encodeURIComponent(token)}` : url;
  }

  private async ask<T>(method: string, path: string, parameters = {}, body?: object): Promise<T> {
    return (await this.send(method, path, parameters, body)).json() as Promise<T>;
  }

  private async send(
    method: string,
    path: string,
    parameters: Record<string, string>,
    body?: object
  ): Promise<Response> {
    const url = URLExt.join(this.settings.baseUrl, NAMESPACE, path) + URLExt.objectToQueryString(parameters);
    const init: RequestInit = { method, body: method === 'GET' ? undefined : JSON.stringify(body ?? {}) };
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this.settings);
    } catch (error) {
      throw new RequestError({
        message: "Jupyter's server does not answer.",
        hint: error instanceof Error ? error.message : '',
        status: 0
      });
    }
    if (!response.ok) {
      throw new RequestError(await refusalOf(response));
    }
    return response;
  }
}

async function refusalOf(response: Response): Promise<Problem> {
  try {
    const { message, hint } = (await response.json()) as Partial<Problem>;
    if (message) {
      return { message, hint: hint ?? '', status: response.status };
    }
  } catch {
    // it is not ours: a proxy's page, for instance
  }
  if (response.status === 404) {
    const hint = 'Run: jupyter server extension enable jupyter_ext, and start Jupyter again.';
    return { message: "This Jupyter server has not got remote_exec's part.", hint, status: 404 };
  }
  return {
    message: `Jupyter's server answered: ${response.status} ${response.statusText}`,
    hint: '',
    status: response.status
  };
}
