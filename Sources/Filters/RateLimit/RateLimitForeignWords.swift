import Pipeline

/// Other proxies' words for counting and slowing down.
extension RateLimitFilter {
    static let foreignWords: [String: ForeignWord] = .foreignWords([
        "stick-table|limit_conn_zone|limit_req_zone": ForeignWord("limit", "rate_limit"),
        "limit_conn|limit_req": ForeignWord("rate_limit", "limit"),
        "track-sc0|track-sc1|track-sc2": ForeignWord("rate_limit"),
        "sc-add-gpc|sc-inc-gpc|sc-inc-gpc0|sc-inc-gpc1|sc-set-gpt|sc-set-gpt0": ForeignWord("rate_limit"),
        "limit_conn_dry_run": ForeignWord("shadow", advice: "write `shadow` as the last clause of the stage"),
        // Settings of a table.
        "type": ForeignWord("key"), "size|expire|nopurge": ForeignWord("table"),
        "store conn_cur": ForeignWord("concurrent"), "store conn_rate|store sess_rate": ForeignWord("rate"),
        "store bytes_in_rate": ForeignWord("bytes_up"), "store bytes_out_rate": ForeignWord("bytes_down"),
        // Of a listener.
        "maxconn": ForeignWord(advice: "for a listener a `limit` with `key listener` and `concurrent 1000`"),
        "maxconnrate|maxsessrate|rate-limit|set rate-limit": ForeignWord(
            advice: "write a `limit` with `key listener` and `rate 100/s`, and the stage `rate_limit NAME`"),
        // Of a connection.
        "filter bwlim-in|filter bwlim-out|set-bandwidth-limit|limit_rate": ForeignWord(advice: bytes),
        "proxy_download_rate|proxy_upload_rate": ForeignWord(advice: bytes),
    ])
    private static let bytes =
        "write a `limit` with `key connection` and `bytes_up` or `bytes_down`, and the stage `rate_limit NAME`"
}
