import * as React from 'react';

export interface Page {
  readonly name: string;
  readonly view: React.JSX.Element;
}

/** Tabs as screen readers know them: the arrow keys go from one to the next. */
export function Tabs({ label, pages }: { label: string; pages: Page[] }): React.JSX.Element {
  const [chosen, choose] = React.useState(pages[0]?.name);
  const prefix = React.useId();
  const tabs = React.useRef<HTMLDivElement>(null);
  const at = Math.max(
    0,
    pages.findIndex(page => page.name === chosen)
  );
  const onKeyDown = (event: React.KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 };
    const step = steps[event.key];
    if (step !== undefined) {
      const next = (step + pages.length) % pages.length;
      choose(pages[next]?.name);
      (tabs.current?.children[next] as HTMLElement | undefined)?.focus();
      event.preventDefault();
    }
  };
  return (
    <>
      <div ref={tabs} className="jp-RemoteExec-tabs" role="tablist" aria-label={label} onKeyDown={onKeyDown}>
        {pages.map((page, number) => (
          <button
            key={page.name}
            type="button"
            role="tab"
            id={`${prefix}tab${page.name}`}
            aria-controls={`${prefix}page`}
            aria-selected={number === at}
            tabIndex={number === at ? 0 : -1}
            onClick={() => choose(page.name)}
          >
            {page.name}
          </button>
        ))}
      </div>
      <div
        className="jp-RemoteExec-tabPage"
        role="tabpanel"
        id={`${prefix}page`}
        aria-labelledby={`${prefix}tab${pages[at]?.name}`}
        key={pages[at]?.name}
      >
        {pages[at]?.view}
      </div>
    </>
  );
}
