import * as React from 'react';

import { Model } from '../model/signalling';
import type { JobActions } from './actions';

/** Draw again whenever a model has changed; many changes within one frame make one drawing. */
export function useModel(model: Model): void {
  const [, again] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    let asked = 0;
    const onChange = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        again();
      });
    };
    model.changed.connect(onChange);
    again(); // it may have changed before
    return () => {
      model.changed.disconnect(onChange);
      cancelAnimationFrame(asked);
    };
  }, [model]);
}

/** Draw again whenever what can be done has changed. */
export function useActions({ onChange }: JobActions): void {
  const [, again] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => onChange(again), [onChange]);
}

/** Return the time in seconds, each second anew while something is under way. */
export function useNow(ticks: boolean): number {
  const [now, set] = React.useState(() => Date.now() / 1000);
  React.useEffect(() => {
    set(Date.now() / 1000);
    if (!ticks) {
      return;
    }
    const timer = setInterval(() => set(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [ticks]);
  return now;
}

/** Return how high and how far scrolled an element is, and the properties that it needs for that. */
export function useScroll<E extends HTMLElement>(): [React.RefObject<E>, number, number, () => void] {
  const reference = React.useRef<E>(null);
  const [scrolled, setScrolled] = React.useState(0);
  const [height, setHeight] = React.useState(0);
  React.useLayoutEffect(() => {
    const element = reference.current;
    if (element === null) {
      return;
    }
    setHeight(element.clientHeight);
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const onScroll = React.useCallback(() => setScrolled(reference.current?.scrollTop ?? 0), []);
  return [reference, scrolled, height, onScroll];
}

/** Return how wide an element is. */
export function useWidth<E extends HTMLElement>(): [React.RefObject<E>, number] {
  const reference = React.useRef<E>(null);
  const [width, setWidth] = React.useState(0);
  React.useLayoutEffect(() => {
    const element = reference.current;
    if (element === null) {
      return;
    }
    setWidth(element.clientWidth);
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [reference, width];
}
