"""A forced-choice study of codecs that people take in a browser, and the analysis of their choices.

`design` makes the study, `server` runs it, `page` is what people see (also as one file without a server),
`votes` is the open csv, `analysis`, `power` and `observers` are the statistics, `published` the facts of others.
"""
