import { ISessionContext, Notification } from '@jupyterlab/apputils';
import { DocumentRegistry } from '@jupyterlab/docregistry';
import { INotebookModel } from '@jupyterlab/notebook';
import { Kernel } from '@jupyterlab/services';

import { Model } from './signalling';

/** Code by which a kernel knows our magics from then on; silent where it did before. */
export const LOAD_EXTENSION = "get_ipython().extension_manager.load_extension('jupyter_ext')";

const METADATA = 'remote_exec';
const NAME = /^[\w.-]+$/; // what instance types are called; nothing else gets into a kernel

/** The instance type that a notebook's `%%remote` cells use: kept in its metadata, told to its kernel. */
export class NotebookDefault extends Model {
  constructor(private readonly context: DocumentRegistry.IContext<INotebookModel>) {
    super();
    context.model.metadataChanged.connect(this.tell, this);
    context.sessionContext.statusChanged.connect(this.onStatus, this);
    context.sessionContext.kernelChanged.connect(this.onKernel, this);
  }

  get path(): string {
    return this.context.path;
  }

  /** The instance type's name; empty where the configuration decides. */
  get instanceType(): string {
    const metadata = this.context.model.getMetadata(METADATA) as { instance_type?: unknown } | undefined;
    const name = metadata?.instance_type;
    return typeof name === 'string' && NAME.test(name) ? name : '';
  }

  async use(name: string): Promise<void> {
    if (name) {
      this.context.model.setMetadata(METADATA, { instance_type: name });
    } else {
      this.context.model.deleteMetadata(METADATA);
    }
    await this.apply(true);
  }

  dispose(): void {
    this.context.model.metadataChanged.disconnect(this.tell, this);
    this.context.sessionContext.statusChanged.disconnect(this.onStatus, this);
    this.context.sessionContext.kernelChanged.disconnect(this.onKernel, this);
  }

  /** A new kernel is told before anything runs in it. */
  private onKernel(): void {
    if (this.instanceType) {
      void this.apply(false);
    }
  }

  private onStatus(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting') {
      this.isRestarted = true;
    } else if (status === 'idle' && this.isRestarted) {
      this.isRestarted = false;
      this.onKernel();
    }
  }

  /** Tell the kernel, if it is Python's. */
  private async apply(isAsked: boolean): Promise<void> {
    const { session, specsManager } = this.context.sessionContext;
    const kernel = session?.kernel;
    if (!kernel || specsManager.specs?.kernelspecs[kernel.name]?.language !== 'python') {
      return;
    }
    const [magic, line] = this.instanceType
      ? ['remote', `use ${this.instanceType}`]
      : ['config', 'RemoteMagics.instance_type = ""'];
    const code = `${LOAD_EXTENSION}\nget_ipython().run_line_magic('${magic}', '${line}')`;
    const { content } = await kernel.requestExecute({ code, silent: true, store_history: false }).done;
    if (content.status === 'error' && isAsked) {
      const hint =
        content.ename === 'ModuleNotFoundError'
          ? "\nremote_exec is not installed where this notebook's kernel runs."
          : '';
      Notification.error(`${content.ename}: ${content.evalue}${hint}`, { autoClose: 8000 });
    }
  }

  private isRestarted = false;
}
