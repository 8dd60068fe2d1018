import { ReactWidget } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import type * as React from 'react';

/** What is kept up to date only while somebody sees it. */
export interface Watched {
  watch(): void;
  rest(): void;
}

/** A view in a widget of its own; its model watches while it is visible. */
export class ModelWidget extends ReactWidget {
  constructor(
    private readonly model: Watched,
    private readonly draw: () => React.JSX.Element
  ) {
    super();
    this.addClass('jp-RemoteExec');
  }

  protected override render(): React.JSX.Element {
    return this.draw();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    if (this.isVisible) {
      this.model.watch();
    }
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.model.watch();
    this.update();
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.model.rest();
  }

  protected override onBeforeDetach(message: Message): void {
    super.onBeforeDetach(message);
    this.model.rest();
  }
}
