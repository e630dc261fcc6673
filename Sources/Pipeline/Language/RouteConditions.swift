import Pipeline

extension RouteSettings {
    static let when = RouteSetting(
        SettingLine(
            "when",
            [
                [.word("alpn"), .list(alpn, limit: 16)],
                [.word("protocol"), .list(client, limit: ClientProtocol.allCases.count)],
            ],
            "only connections whose first bytes say so, as below: a TLS hello that offers one of these ALPN protocols; or, "
                + "without a hostname, what is no TLS",
            without: "all that the names take"),
        read: .clause { draft, clause, span in
            draft.conditions = Located(clause.customs(as: RouteCondition.self), span)
        },
        text: { draft in
            guard let conditions = draft.conditions?.value, let first = conditions.first else { return [] }
            return [([first.text] + conditions.dropFirst().map(\.word)).joined(separator: " ")]
        })

    private static let alpn = ValueKind("NAME", expected: "names of ALPN protocols like `h2`") {
        text throws(ValueProblem) in
        guard (1...RouteCondition.alpnLimit).contains(text.utf8.count), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an ALPN protocol",
                expected: "1 to \(RouteCondition.alpnLimit) visible ASCII characters, like `h2`")
        }
        return .custom(RouteCondition.alpn(text))
    }

    private static let client = ValueKind(
        ClientProtocol.allCases.map(\.name).joined(separator: "|"), expected: "what first bytes are",
        candidates: ClientProtocol.allCases.map(\.name)
    ) { text throws(ValueProblem) in
        guard let found = ClientProtocol.allCases.first(where: { $0.name == text }) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not known by first bytes",
                expected: orList(ClientProtocol.allCases.map { "`\($0.name)`" }),
                help: "`plain` is what is neither TLS nor one of the others")
        }
        return .custom(RouteCondition.client(found))
    }
}

extension RouteCondition {
    /// Without `alpn` or `protocol` in front.
    var word: String {
        switch self {
        case .alpn(let name): name
        case .client(let client): client.name
        }
    }

    var isALPN: Bool { if case .alpn = self { true } else { false } }
}

extension Checker {
    /// What `when` says must fit the rest of the route.
    func refuseConditions(_ fields: RouteDraft, hasNames: Bool) {
        guard let conditions = fields.conditions, let first = conditions.value.first else { return }
        if first.isALPN, !hasNames {
            reporter.error(
                conditions.span, "`when alpn` is about TLS, and a route without hostnames is not",
                help: "name hostnames: `route app.example.com { ... }`")
        }
        if !first.isALPN, hasNames {
            reporter.error(
                conditions.span, "`when protocol` is about what is no TLS, which names no host",
                help: "write another `route` block without hostnames for it")
        }
        if let allows = fields.allowNonTLS, allows.value {
            reporter.error(
                allows.span, "`allow_non_tls` has no effect beside `when`", help: "remove it",
                related: [.init(conditions.span, "it is here")])
        }
    }
}
