/* A regular expression that finds this text and nothing else. */
function escapedPattern(text) { return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"); }
