import Pipeline

/// A `route` block: well-formed fields and their positions. The routing side decides whether it is served.
@dynamicMemberLookup package struct RouteBlock: Sendable {
    package struct Owner: Sendable, Hashable {
        package let org: String
        package let app: String
        package let env: String
    }

    /// The word `route`, and the hostnames if there are any.
    package let span: SourceSpan
    /// As written, not canonical; empty, and no ``map``: a raw TCP route, bound by its ports alone.
    package let hostnames: [Located<String>]
    /// `route file PATH`: the names, each with its group; nil: ``hostnames``.
    package let map: RouteMap?
    package let id: Located<String>
    package let owner: Located<Owner>
    /// At least one; 1...65535.
    package let ports: [Located<UInt16>]
    /// `backends NAME`, with the block; nil: its own backends.
    package let group: Located<BackendsBlock>?
    /// With at least one backend; what ``group`` says, if it names one, is in them.
    package let fields: BackendFields
    /// Without what ``group`` says.
    let own: BackendFields
    package let allowNonTLS: Located<Bool>?
    /// `when`: each is a claim of its own; nil: none.
    package let conditions: Located<[RouteCondition]>?

    package subscript<Field>(dynamicMember field: KeyPath<BackendFields, Field>) -> Field { fields[keyPath: field] }

    package var hint: ProtocolHint {
        hostnames.isEmpty && map == nil && conditions == nil ? .tcpRaw : .tlsPassthrough
    }

    /// A name at a port, for one condition. Each is judged and served by itself; all count as one route.
    package struct Claim {
        /// As written; nil: none.
        package let hostname: String?
        package let port: Located<UInt16>
        package let condition: RouteCondition?
        package let group: BackendsBlock?
        /// What ``group`` says is in them.
        package let fields: BackendFields
        /// Where the name is.
        package let span: SourceSpan
        /// In the file; nil: it is in the config.
        package let line: Int?
    }

    /// Each name at each port for each condition: at least one, but for an empty file.
    package var claimCount: Int { (map?.count ?? max(1, hostnames.count)) * ports.count * conditionCount }
    private var conditionCount: Int { max(1, conditions?.value.count ?? 0) }

    package func claim(_ index: Int) -> Claim {
        let condition = conditions?.value[index % conditionCount]
        let place = index / conditionCount
        let (name, port) = (place / ports.count, ports[place % ports.count])
        if let map {
            let group = map.group(name)
            return Claim(
                hostname: map.hostname(name), port: port, condition: condition, group: group,
                fields: fields.leading(to: group.fields), span: map.path.span, line: map.line(name))
        }
        let hostname = hostnames.isEmpty ? nil : hostnames[name]
        return Claim(
            hostname: hostname?.value, port: port, condition: condition, group: group?.value, fields: fields,
            span: hostname?.span ?? span, line: nil)
    }
}

extension Checker {
    static let hostnamesPerRoute = 1024
    /// As many as one name can have (R27).
    static let portsPerName = 64
    /// Of a raw route: as many as there may be listeners.
    static let portsPerRoute = listenerPortLimit

    func checkRoutes(_ entries: [EntrySyntax]) {
        for entry in entries where !reporter.isFull {
            if let route = checkedRoute(entry) { routes.append(route) }
        }
    }

    private func checkedRoute(_ entry: EntrySyntax) -> RouteBlock? {
        let errorsBefore = reporter.errorCount
        var words = arguments(of: entry) ?? []
        let path = words.count == 2 && words[0].text == "file" ? Located(words[1].text, words[1].span) : nil
        if path != nil { words = [] }
        let hostnames = distinct(words, "the hostname", Checker.hostnamesPerRoute)
        var (fields, seen) = readRouteLines(entry, of: RouteSettings.route)
        let own = fields.backend
        reportMissing(seen, hasBackends: path != nil || seen["backends"] != nil, entry)
        if let group = fields.group {
            refuseRepeated(group.value, seen)
            fields.backend = fields.backend.leading(to: group.value.fields)
        }
        refuseTooManyPorts(fields, hostnames, path)
        refuseConditions(fields, hasNames: !hostnames.isEmpty || path != nil)
        if reporter.errorCount == errorsBefore {
            refuseIdleQueue(fields.backend, fields.group == nil ? fields.backend.backends : [], of: "the route")
            // A block's own was judged there.
            refuseIdleSource(own.source, fields.backend.backends)
        }
        let map = path.flatMap {
            self.map($0, seen, ports: fields.ports.count * max(1, fields.conditions?.value.count ?? 0))
        }
        guard reporter.errorCount == errorsBefore, let id = fields.id, let owner = fields.owner else { return nil }
        // Those of a `backends` block are warned of there.
        if fields.group == nil { warnIfWeightless(fields.backend.backends, of: "the route", at: entry.headSpan) }
        return RouteBlock(
            span: entry.headSpan, hostnames: hostnames.map { Located($0.text, $0.span) }, map: map, id: id,
            owner: owner, ports: fields.ports, group: fields.group, fields: fields.backend, own: own,
            allowNonTLS: fields.allowNonTLS, conditions: fields.conditions)
    }

    private func reportMissing(_ seen: [String: SourceSpan], hasBackends: Bool, _ entry: EntrySyntax) {
        let missing = RouteSettings.route.lines.filter {
            $0.line.missing != nil && seen[$0.keyword] == nil && !(hasBackends && $0.repeats)
        }
        guard !missing.isEmpty else { return }
        reporter.report(
            Diagnostic(
                .error, at: entry.headSpan, "the route has no \(andList(missing.map { "`\($0.keyword)`" }))",
                help: missing.compactMap(\.line.missing?.remedy)))
    }

    /// What the block says holds for all its routes, so a route can't say it again.
    private func refuseRepeated(_ block: BackendsBlock, _ seen: [String: SourceSpan]) {
        for setting in RouteSettings.group.lines {
            guard let place = setting.saidByGroup?(block), let mine = seen[setting.keyword] else { continue }
            reporter.error(
                mine, "`\(setting.keyword)` is set by `backends \(block.name.value)`, for all its routes",
                help: "remove this line, or that one", related: [.init(place, "it is set here")])
        }
    }

    /// The words, each once; at most `limit`.
    private func distinct(_ words: [WordSyntax], _ what: String, _ limit: Int) -> [WordSyntax] {
        var first: [String: SourceSpan] = [:]
        var list: [WordSyntax] = []
        for word in words where !reporter.isFull {
            if isDuplicate("\(what) \(quoted(word.text))", word.span, firstAt: first[word.text]) { continue }
            first[word.text] = word.span
            guard list.count < limit else {
                reporter.error(word.span, "more than \(limit) in one route", help: "write another `route` block")
                return list
            }
            list.append(word)
        }
        return list
    }

    func checkPorts(_ words: [WordSyntax], _ keyword: WordSyntax, _ list: inout [Located<UInt16>]) {
        if words.isEmpty { reporter.error(keyword.span.behind, "`listen` is not complete", expected: "ports") }
        list = ports(words)
    }

    /// Ports and ranges of them, each port once.
    private func ports(_ words: [WordSyntax]) -> [Located<UInt16>] {
        var first: [UInt16: SourceSpan] = [:]
        var list: [Located<UInt16>] = []
        for word in words where !reporter.isFull {
            guard let range = parsed(word, { text throws(ValueProblem) in try ConfigValue.ports(text) }) else {
                continue
            }
            guard list.count + range.value.count <= Checker.portsPerRoute else {
                reporter.error(
                    word.span, "more than \(Checker.portsPerRoute) ports in one route",
                    help: "write another `route` block")
                return list
            }
            for port in range.value {
                if isDuplicate("the port `\(port)`", word.span, firstAt: first[port]) { break }
                first[port] = word.span
                list.append(Located(port, word.span))
            }
        }
        return list
    }

    /// A name has few ports; they are looked through.
    private func refuseTooManyPorts(_ fields: RouteDraft, _ hostnames: [WordSyntax], _ path: Located<String>?) {
        guard !hostnames.isEmpty || path != nil else { return }
        let conditions = max(1, fields.conditions?.value.count ?? 0)
        guard fields.ports.count <= Checker.portsPerName else { return refuseManyPorts(fields) }
        guard fields.ports.count * conditions > Checker.portsPerName, let span = fields.conditions?.span else { return }
        reporter.error(
            span,
            "\(fields.ports.count) ports times \(conditions) ALPN protocols are more than \(Checker.portsPerName)",
            help: "write fewer of one or the other: a name has at most \(Checker.portsPerName) in all its routes")
    }

    private func refuseManyPorts(_ fields: RouteDraft) {
        reporter.error(
            fields.ports[Checker.portsPerName].span, "more than \(Checker.portsPerName) ports in a route with names",
            help: "a route without names may have more: it takes all that comes to its ports")
    }

    func checkRouteSources(_ entries: [EntrySyntax]) {
        var first: SourceSpan?
        for entry in entries where !reporter.isFull {
            if isDuplicate("`routes`", entry.headSpan, firstAt: first) { continue }
            guard let words = arguments(of: entry) else { continue }
            switch words.first?.text {
            case "file"?: checkRouteFile(words)
            case "push"?: checkPushes(words)
            default:
                report(
                    ClauseFailure(
                        progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" },
                        expected: ["`file`", "`push`"], candidates: ["file", "push"]), words, of: entry.keyword)
                continue
            }
            first = entry.headSpan
        }
    }

    private func checkRouteFile(_ words: [WordSyntax]) {
        guard
            let path = onlyWord(Array(words[1...].prefix(1)), of: words[0], expected: "the path of a state file")
        else { return }
        if words.count > 2 {
            guard words.count == 3, words[2].text == "watch" else {
                let wrong = words[2].text == "watch" ? words[3] : words[2]
                reporter.error(
                    wrong.span, "unexpected \(quoted(wrong.text))",
                    expected: words[2].text == "watch" ? "the end of the line" : "`watch`, or the end of the line",
                    help: suggestion(for: wrong.text, among: ["watch"]))
                return
            }
            watchesRoutes = true
        }
        guard !path.text.isEmpty, path.text.utf8.count <= 4096 else {
            reporter.error(path.span, "the path is empty or too long", expected: "1 to 4096 bytes")
            return
        }
        routesFile = Located(path.text, path.span)
    }

    /// What is pushed has to be kept: nothing else has it after a restart.
    private func checkPushes(_ words: [WordSyntax]) {
        guard words.count == 1 else {
            reporter.error(words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line")
            return
        }
        takesPushes = words[0].span
        if node.stateDirectory == nil {
            reporter.error(
                words[0].span, "`routes push` needs a `state` directory: nothing else keeps what is pushed",
                help: "add `state /var/lib/pipelined` to `node`")
        }
        if node.adminSocket == nil {
            reporter.error(
                words[0].span, "`routes push` needs an `admin` socket, by which routes are pushed",
                help: "add `admin unix:/run/pipelined/admin.sock` to `node`")
        }
    }
}

extension ConfigValue {
    /// An id of the platform: letters, digits, `_`, `-`, `.`, `:`; at most 128.
    static func identifier(_ text: String) throws(ValueProblem) -> String {
        guard isIdentifier(text) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an id", expected: "letters, digits, `_`, `-`, `.` or `:`, at most 128")
        }
        return text
    }

    static func owner(_ text: String) throws(ValueProblem) -> RouteBlock.Owner {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, parts.allSatisfy(isIdentifier) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an owner", expected: "ORG/APP/ENV, like `acme/shop/prod`")
        }
        return RouteBlock.Owner(org: parts[0], app: parts[1], env: parts[2])
    }

    private static func isIdentifier(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count)
            && text.utf8.allSatisfy { c in
                c.isASCIILetterOrDigit || c == 0x5F || c == 0x2D
                    || c == 0x2E || c == 0x3A
            }
    }
}
