import Pipeline

/// What `decode proxy --json` must say of an entry of proxyv2.json: built from the entry, field by field.
enum DecodedVector {
    static func json(_ expected: Any) -> String {
        guard let header = expected as? [String: Any] else { return failed(expected as? String ?? "?") }
        let isLocal = header["command"] as? String == "LOCAL"
        let family = (header["family"] as? String ?? "UNSPEC").lowercased().split(separator: "_").map(String.init)
        // Of what LOCAL says about family and transport, nothing means anything.
        let pair = isLocal || family == ["unspec"] ? ["unspec", "unspec"] : family
        let tlvs = (header["tlvs"] as? [[String: Any]] ?? []).map {
            "{\"type\":\($0["type"] as? Int ?? -1),\"value\":\"\($0["value_hex"] as? String ?? "?")\"}"
        }
        let fields = [
            "\"outcome\":\"ok\"", "\"version\":\(header["version"] as? Int ?? -1)",
            "\"command\":\"\(isLocal ? "local" : "proxy")\"", "\"family\":\"\(pair[0])\"",
            "\"transport\":\"\(pair.count > 1 ? pair[1] : "?")\"", "\"source\":\(endpoint(header, "src", "sport"))",
            "\"destination\":\(endpoint(header, "dst", "dport"))", "\"tlvs\":[\(tlvs.joined(separator: ","))]",
            "\"bytes\":\(header["consumed"] as? Int ?? -1)",
        ]
        return "{\(fields.joined(separator: ","))}"
    }

    private static func endpoint(_ header: [String: Any], _ address: String, _ port: String) -> String {
        guard let address = (header[address] as? String).flatMap({ IPAddress($0) }), let port = header[port] as? Int,
            let port = UInt16(exactly: port)
        else { return "null" }
        return "\"\(Endpoint(address, port))\""
    }

    private static func failed(_ outcome: String) -> String {
        let none = ["version", "command", "family", "transport", "source", "destination"]
        return "{\"outcome\":\"\(outcome)\"," + none.map { "\"\($0)\":null" }.joined(separator: ",")
            + ",\"tlvs\":[],\"bytes\":0}"
    }
}
