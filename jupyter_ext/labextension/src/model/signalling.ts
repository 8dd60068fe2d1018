import { ISignal, Signal } from '@lumino/signaling';

/** Something that tells when it has changed. */
export abstract class Model {
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  protected tell(): void {
    this._changed.emit();
  }

  private _changed = new Signal<this, void>(this);
}
