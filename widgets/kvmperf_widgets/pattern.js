/* A regular expression that finds this text and nothing else. */
function escapedPattern(text) { return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"); }

/* A regular expression as Python writes them, as far as JavaScript can: (?i) at the start, (?P<name>...). */
function expression(pattern) {
  const flags = /^\(\?([ims]+)\)/.exec(pattern);
  const rest = flags ? pattern.slice(flags[0].length) : pattern;
  return new RegExp(rest.replace(/\(\?P</g, "(?<").replace(/\(\?P=(\w+)\)/g, "\\k<$1>"), flags ? flags[1] : "");
}
