import Pipeline

/// A config as text, for `check --print`: one program, and from which of several files each part is.
package func describe(_ program: Program, from compilation: Compilation) -> String {
    let files = compilation.source.files
    let list = files.count > 1 ? files.map { "# \($0)\n" }.joined() : ""
    return list + describe(program, compilation.origins) + describe(compilation)
}

/// A program as text, for `check --print` and golden tests: deterministic, and independent of positions in the source.
package func describe(_ program: Program) -> String { describe(program, nil) }

/// - Parameter origins: what is from included files; nil: none is marked.
private func describe(_ program: Program, _ origins: [String: ConfigLine]?) -> String {
    let mark = { (head: String) in origins?[head].map { "  # \($0)" } ?? "" }
    return describe(NodeBlock.descriptor, NodeBlock(program.node.name, program.node), with: nodeLines(program), mark)
        + describeAllButNode(program, origins)
}

/// What is compiled from everything but `node`: texts differ where connections may be treated otherwise.
package func describeAllButNode(_ program: Program) -> String { describeAllButNode(program, nil) }

private func describeAllButNode(_ program: Program, _ origins: [String: ConfigLine]?) -> String {
    let mark = { (head: String) in origins?[head].map { "  # \($0)" } ?? "" }
    let ofFile = { (line: ConfigLine) in origins == nil ? "" : fileMark(line) }
    var text = ""
    for descriptor in program.catalog.blocks {
        let blocks = program.blocks.all(descriptor.kind).sorted { $0.name < $1.name }
        for block in blocks { text += describe(descriptor, block, mark) }
    }
    for chain in program.chains.buffer { text += describe(chain, mark) }
    for listener in program.listeners {
        text += "listen \(listener.placeText) \(listener.kindName) via \(program.chainName(listener.chain))"
        text += ListenerWords.text(listener.options) + ofFile(listener.line) + "\n"
    }
    for expose in program.exposes {
        let address =
            expose.isDedicated
            ? Checker.dedicated : expose.address.isIPv4 ? "\(expose.address)" : "[\(expose.address)]"
        text += "expose \(address) ports \(expose.ports.lowerBound)-\(expose.ports.upperBound) "
        text += "\(expose.hint.name) via \(program.chainName(expose.chain))"
        text += ListenerWords.text(expose.options) + ofFile(expose.line) + "\n"
    }
    return text
}

private func fileMark(_ line: ConfigLine) -> String { line.file == nil ? "" : "  # \(line)" }

/// Lines of `node` that belong to filters.
private func nodeLines(_ program: Program) -> [String] {
    program.catalog.blocks.flatMap { descriptor -> [String] in
        guard case .nodeLine = descriptor.shape else { return [] }
        return program.blocks.all(descriptor.kind).flatMap(descriptor.lines)
    }
}

private func describe(
    _ descriptor: BlockDescriptor, _ block: any ConfigBlock, with more: [String] = [], _ mark: (String) -> String
) -> String {
    let lines = descriptor.lines(of: block) + more
    switch descriptor.shape {
    case .nodeLine: return ""
    case .line: return lines.map { "\($0)\n" }.joined()
    case .named, .single, .list:
        let head = block.name.isEmpty ? descriptor.keyword : "\(descriptor.keyword) \(block.name)"
        return head + mark(head) + "\n" + lines.map { "    \($0)\n" }.joined()
    }
}

/// The `backends` and `route` blocks as text, in source order: as they are written, a setting a line.
package func describe(_ compilation: Compilation) -> String {
    let mark = { (span: SourceSpan) in fileMark(compilation.source.configLine(of: span.start)) }
    let groups = compilation.groups.map { group in
        describe(
            "backends \(writtenWord(group.name.value))\(mark(group.name.span))", RouteSettings.group,
            RouteDraft(group.fields))
    }
    let routes = compilation.routes.map { route in
        let names = route.map.map { ["file", $0.path.value] } ?? route.hostnames.map(\.value)
        let head = (["route"] + names.map(writtenWord)).joined(separator: " ") + mark(route.span)
        return describe(head, RouteSettings.route, RouteDraft(route)) + (route.map.map(describe) ?? "")
    }
    return (groups + routes).joined()
}

private func describe(_ head: String, _ block: RouteSettings.Block, _ draft: RouteDraft) -> String {
    let lines = block.lines.flatMap { setting in setting.text(draft).map { "    \(setting.keyword) \($0)\n" } }
    return "\(head)\n" + lines.joined()
}

/// What the file of a route has.
private func describe(_ map: RouteMap) -> String {
    "    # \(map.count) names; backends: \(map.groups.map(\.name.value).joined(separator: " "))\n"
}

/// `443 30000-30100`: ports in a row are one word.
func describe(_ ports: [UInt16]) -> String {
    var runs: [ClosedRange<UInt16>] = []
    for port in ports {
        if let last = runs.last, last.upperBound < .max, last.upperBound + 1 == port {
            runs[runs.count - 1] = last.lowerBound...port
        } else {
            runs.append(port...port)
        }
    }
    return runs.map(DeniedPorts.text).joined(separator: " ")
}

func describe(_ backend: BackendSpec) -> String {
    var text = backend.place
    if backend.weight != 1 { text += " weight \(backend.weight)" }
    if backend.maxConnections > 0 { text += " max \(backend.maxConnections)" }
    if backend.priority > 0 { text += " " + BackendSpec.name(ofPriority: backend.priority) }
    return text
}

extension Program {
    fileprivate func chainName(_ index: Int) -> String {
        index >= 0 && index < chains.count ? chains[index].name : "?"
    }
}

private func describe(_ chain: Chain, _ mark: (String) -> String) -> String {
    let head = "pipeline \(chain.name)"
    var text = head + mark(head) + "\n"
    if chain.peekBytes > 0 {
        let limit = chain.peekTimeout.map { "within \($0.configText)" } ?? "without deadline"
        let how = chain.isNonBlocking ? "inspects without blocking" : "before the backend is connected"
        text += "    peeks up to \(chain.peekBytes) bytes \(limit), \(how)\n"
    } else {
        text += "    peeks nothing\n"
    }
    var known: Set<Fact> = []
    for (index, stage) in chain.stages.buffer.enumerated() {
        known.formUnion(stage.facts.gives)
        text += "    \(index + 1). \(stage.source)\(stage.shadow ? "  [shadow]" : "")\n"
        text += "        state \(stage.stateIndex), reasons from \(stage.reasonBase)"
        if let peek = stage.peek {
            text += ", peeks \(peek.bytes) bytes, \(peek.timeout?.configText ?? "no deadline")"
        }
        let facts = Fact.allCases.filter { known.contains($0) }.map(\.rawValue)
        text += "; known after it: \(facts.isEmpty ? "nothing" : facts.joined(separator: ", "))\n"
        switch chain.turn(of: index) {
        case .inOrder: break
        case .atAccept: text += "        runs at accept\n"
        case .atAcceptUnless(let other):
            text += "        runs at accept; if stage \(other + 1) may replace the client's address, after that stage\n"
        }
    }
    return text
}
