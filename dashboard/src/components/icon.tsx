const PATHS = {
  plus: "M12 5v14M5 12h14",
  pencil: "M4 20h4L19 9l-4-4L4 16v4M13.5 6.5l4 4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
  files: "M4 7a2 2 0 0 1 2-2h4l2 2.5h6a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M7 7l10 10M17 7L7 17",
  chevron: "M9 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  up: "M12 19V8M7 12l5-5 5 5M5 4h14",
  clip: "M19 11.5l-7.5 7.5a4.6 4.6 0 0 1-6.5-6.5L13 4.5a3.1 3.1 0 0 1 4.4 4.4l-7.9 7.9a1.5 1.5 0 0 1-2.2-2.2l7.2-7.2",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  copy: "M9 9h10v11H9zM15 9V5H5v11h4",
  warning: "M12 4L2.8 20h18.4L12 4zM12 10v4.5M12 17.2v.3",
  question: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M9.2 9.3a2.9 2.9 0 1 1 4.2 2.6c-.9.5-1.4 1-1.4 2.1M12 17.3v.2",
  document: "M6 3.5h8l4 4V20.5H6zM14 3.5v4h4",
  leave: "M10 5H5v14h5M14 8l4 4-4 4M9 12h9",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
} as const;

export type IconName = keyof typeof PATHS;

/** A picture beside words, or in a button that has a label: it says nothing itself. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width={size} height={size} aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

export function IconButton({ icon, label, onClick, class: extra = "", pressed, disabled }: {
  icon: IconName; label: string; onClick: () => void; class?: string; pressed?: boolean; disabled?: boolean;
}) {
  return (
    <button type="button" class={`icon-button ${extra}`} aria-label={label} title={label} aria-pressed={pressed} disabled={disabled} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
