//! How a diagram looks, light and dark. The colours are Okabe and Ito's, which
//! colour-blind people tell apart; patterns and words say the same again.

/// Names of colours, on paper and on a dark screen.
const COLOURS: [(&str, &str, &str); 11] = [
    ("--ground", "#ffffff", "#15171b"),
    ("--ink", "#1b1d21", "#e9ebee"),
    ("--dim", "#5b616b", "#a2a8b3"),
    ("--faint", "#c9ced6", "#41464f"),
    ("--reach", "#0072b2", "#56b4e9"),
    ("--wait", "#e69f00", "#e69f00"),
    ("--fault", "#8a3f7d", "#d99acb"),
    ("--stop", "#dcdfe4", "#33373f"),
    ("--cut", "#b9bec7", "#545a66"),
    ("--broken", "#c40000", "#ff6b6b"),
    ("--broken-ground", "#fff0f0", "#3a1d1f"),
];

/// The style of a page.
pub(super) fn page() -> String {
    let names = |dark: bool| {
        let one = |(name, light, night): &(&str, &str, &str)| {
            format!("{name}: {};", if dark { night } else { light })
        };
        COLOURS.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    format!(
        "\n:root {{ {} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {} }} }}\n{PAGE}{DRAWING}",
        names(false),
        names(true)
    )
}

/// The style of a drawing that stands alone. Not every program that shows one
/// knows variables: the colours are written out.
pub(super) fn alone() -> String {
    let written = |dark: bool| {
        let mut rules = format!(".ground {{ fill: var(--ground); }}\n{DRAWING}");
        for (name, light, night) in COLOURS {
            rules = rules.replace(&format!("var({name})"), if dark { night } else { light });
        }
        rules
    };
    format!("\n{}@media (prefers-color-scheme: dark) {{\n{}}}\n", written(false), written(true))
}

const PAGE: &str = "\
body { margin: 0 1.5rem 3rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 1.2rem 0 0.4rem; }
p { max-width: 62rem; margin: 0.5rem 0; }
code { font: 13px ui-monospace, monospace; background: var(--stop); padding: 0.15rem 0.4rem;
  border-radius: 4px; }
.broken { border-left: 5px solid var(--broken); background: var(--broken-ground);
  padding: 0.5rem 0.8rem; }
.broken b { color: var(--broken); }
.dim { color: var(--dim); }
.heads { position: sticky; top: 0; background: var(--ground); border-bottom: 1px solid var(--faint); }
svg { display: block; }
.legend { max-width: 100%; height: auto; }
";

const DRAWING: &str = "\
text { font: 11px system-ui, sans-serif; fill: var(--ink); paint-order: stroke;
  stroke: var(--ground); stroke-width: 3px; stroke-linejoin: round; }
text.head { font-size: 13px; font-weight: 600; }
text.role, text.time, text.quiet { fill: var(--dim); }
text.time { font-variant-numeric: tabular-nums; }
text.fault { fill: var(--fault); font-weight: 600; }
text.note { font-style: italic; }
text.reach { fill: var(--reach); font-weight: 600; }
text.wait { font-weight: 600; }
text.title { font-size: 15px; font-weight: 700; }
text.broken { fill: var(--broken); font-weight: 700; font-size: 12px; }
.life { stroke: var(--dim); stroke-width: 1.5; }
.gone { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 1 5; }
.tick { stroke: var(--faint); }
.band-reach { fill: var(--reach); }
.band-wait { fill: url(#waiting); }
.stopped { fill: var(--stop); }
.wait-stripe { fill: var(--wait); }
.cut-stripe { fill: var(--cut); }
.cut { fill: url(#cut); }
.wait-ground, .fold { fill: var(--ground); }
.edge { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 6 4; fill: none; }
.arrow { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.routine { stroke: var(--dim); stroke-width: 1; fill: none; }
.late { stroke: var(--fault); stroke-width: 1.8; stroke-dasharray: 7 4; fill: none; }
.lost { stroke: var(--fault); stroke-width: 1.5; fill: none; }
.tip { fill: var(--ink); }
.tip-routine { fill: var(--dim); }
.tip-late { fill: var(--fault); }
.bang { fill: var(--fault); }
.begin { fill: var(--ink); }
.end { stroke: var(--ink); stroke-width: 2.5; }
.red { stroke: var(--broken); stroke-width: 2; fill: none; }
.window { stroke: var(--broken); stroke-width: 2; fill: none; stroke-dasharray: 3 3; }
";

/// Patterns and arrowheads; defined once, used by every drawing of the page.
pub(super) const DEFINITIONS: &str = r#"<defs>
<pattern id="waiting" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" class="wait-ground"/><rect width="3.5" height="6" class="wait-stripe"/></pattern>
<pattern id="cut" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect width="1.5" height="8" class="cut-stripe"/></pattern>
<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0.5L8 4L0 7.5z"/></marker>
<marker id="tip-routine" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="tip-routine" d="M0 0.5L8 4L0 7.5z"/></marker>
<marker id="tip-late" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="tip-late" d="M0 0.5L8 4L0 7.5z"/></marker>
</defs>"#;
