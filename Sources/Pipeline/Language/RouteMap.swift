import Pipeline

/// The names of `route file PATH`, each with its `backends` block. A million take their bytes and 12 more each.
package struct RouteMap: Sendable {
    package let path: Located<String>
    /// In the order of their first lines.
    package private(set) var groups: [BackendsBlock] = []
    private var text: [UInt8] = []
    private var entries: [Entry] = []
    private var numbers: [String: UInt32] = [:]

    private struct Entry {
        /// Where its name ends in ``text``; it begins where the one before ends.
        let end: UInt32
        let group: UInt32
        let line: UInt32
    }

    init(_ path: Located<String>) { self.path = path }

    package var count: Int { entries.count }

    package func hostname(_ index: Int) -> String {
        let start = index == 0 ? 0 : Int(entries[index - 1].end)
        return String(decoding: text[start..<Int(entries[index].end)], as: UTF8.self)
    }
    package func group(_ index: Int) -> BackendsBlock { groups[Int(entries[index].group)] }
    package func line(_ index: Int) -> Int { Int(entries[index].line) }

    /// Files are below 4 GiB.
    mutating func add(_ name: UnsafeBufferPointer<UInt8>, _ group: BackendsBlock, line: Int) {
        let number = numbers[group.name.value] ?? UInt32(groups.count)
        if number == groups.count {
            numbers[group.name.value] = number
            groups.append(group)
        }
        text += name
        entries.append(Entry(end: UInt32(clamping: text.count), group: number, line: UInt32(clamping: line)))
    }
}

extension Checker {
    /// Names at ports of one file.
    static let mapLimit = 4_000_000
    /// Of the route, whatever groups it leads to.

    /// Reads `NAME GROUP` lines. Nil, reported, if something is wrong.
    func map(_ path: Located<String>, _ seen: [String: SourceSpan], ports: Int) -> RouteMap? {
        for setting in RouteSettings.route.lines where setting.saidByGroup != nil {
            guard let place = seen[setting.keyword] else { continue }
            reporter.error(
                place, "`\(setting.keyword)` has no place in `route file`: each line of the file names its backends",
                help: "write it in the `backends` blocks that the file names, and remove it here")
        }
        var map = RouteMap(path)
        var last: BackendsBlock?
        let isRead = forEachLine(of: path) { line, number throws(ValueProblem) in
            guard map.count * max(1, ports) < Checker.mapLimit else {
                throw ValueProblem(
                    message: "more than \(Checker.mapLimit) names at ports", expected: nil,
                    help: "write routes into a state file: `routes file PATH`")
            }
            let (name, word) = try Checker.pair(line)
            guard last?.name.value.utf8.elementsEqual(word) != true else {
                if let last { map.add(name, last, line: number) }
                return
            }
            let text = String(decoding: word, as: UTF8.self)
            usedGroups.insert(text)
            guard let group = groups[text] else {
                // One that is there but wrong is reported where it is.
                guard !groupNames.contains(text) else { return }
                throw ValueProblem(
                    message: "no backends block is named \(quoted(text))", expected: nil,
                    help: misspelling(of: text, among: groupNames) ?? "add `backends \(text) { ... }` to the config")
            }
            last = group
            map.add(name, group, line: number)
        }
        guard isRead else { return nil }
        if map.count == 0 { reporter.note(path.span, "\(path.value) is empty: it contains no names") }
        return map
    }

    /// A name and a group, with blanks between.
    private static func pair(
        _ line: UnsafeBufferPointer<UInt8>
    ) throws(ValueProblem) -> (name: UnsafeBufferPointer<UInt8>, group: UnsafeBufferPointer<UInt8>) {
        let isBlank = { (byte: UInt8) in byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        let end = line.firstIndex(where: isBlank) ?? line.endIndex
        let name = UnsafeBufferPointer(rebasing: line[..<end])
        guard !name.elementsEqual("default".utf8) else {
            throw ValueProblem(
                message: "`default` is no name of a map: a name that no line has is refused",
                expected: "a hostname, `*.example.com` or `.example.com`", help: "remove this line")
        }
        guard let start = line[end...].firstIndex(where: { !isBlank($0) }) else {
            throw ValueProblem(
                message: "\(quoted(String(decoding: name, as: UTF8.self))) has no backends",
                expected: "`NAME BACKENDS`: a hostname and the name of a `backends` block")
        }
        guard let extra = line[start...].firstIndex(where: isBlank) else {
            return (name, UnsafeBufferPointer(rebasing: line[start...]))
        }
        let rest = line[extra...].drop(while: isBlank)
        throw ValueProblem(
            message: "unexpected \(quoted(String(decoding: rest.prefix(64), as: UTF8.self)))",
            expected: "the end of the line")
    }
}
