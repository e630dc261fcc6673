import FilterCatalog
import Pipeline
import PipelineHost
import PipelineLanguage
import PipelineRouting

/// A config file with everything that it names, read and checked.
package struct LoadedConfig {
    /// The compiled file, with what the routing rules found among its diagnostics.
    package internal(set) var compilation: Compilation
    /// Nil exactly if there are errors: nothing may start then.
    package internal(set) var node: LoadedNode?
    /// Objects of desired state that would be left out (R24).
    package internal(set) var leftOut = 0

    package var diagnostics: [Diagnostic] { compilation.diagnostics }
    package var hasErrors: Bool { compilation.hasErrors }
    /// The diagnostics as text; empty if there are none.
    package var diagnosticText: String { render(diagnostics, source: compilation.source) }
    package var diagnosticJSON: String { renderJSON(diagnostics, source: compilation.source) }
}

/// A node's input: a program, the routes, and the listeners.
package struct LoadedNode {
    package let program: Program
    package let routing: RoutingState
    package let listeners: [PlannedListener]
    /// Of the state file; nil: none is named.
    package let revision: UInt64?
    /// The state file as read; nil: none is named.
    var reading: StateOrder.Reading?
    var guarded = ConfigGuard.Reading()
    var identity = ProgramIdentity.none
    /// Problems of objects that were left out, as lines for `status`.
    var problems: [String] = []
    /// The config file, and what it includes.
    var files: [String] = []
    /// Nil: the config has no `state`.
    var desired: StateInHand?
    /// Nil: no routes file is watched.
    var base: ConfigBase?
    var seen: SeenRoutes?
    /// Why nothing is kept, though the config has `state`.
    var stateFault: String?
    /// Addresses of this node's instances that are bound to an interface in desired state.
    var bound: [BoundAddress] = []
    /// The `route` blocks.
    var blocks: StateDocument?
    /// What was wrong with objects, as they were applied.
    var found = RouteProblems()

    package init(program: Program, routing: RoutingState, listeners: [PlannedListener], revision: UInt64?) {
        self.program = program
        self.routing = routing
        self.listeners = listeners
        self.revision = revision
    }

    package var routes: RouteTableSnapshot { routing.snapshot }
}

/// A config file and its state file, read and checked, but not applied.
struct ReadConfig {
    var compilation: Compilation
    let seed: HashSeed
    /// The `route` blocks.
    let blocks: StateDocument
    /// The state file; nil: none is named, or it can't be used.
    var state: StateDocument?
    var reading: StateOrder.Reading?
    /// Its path, and where the config names it.
    var stateFile: (path: String, place: Located<String>)?
    /// Objects of it that can't be read.
    var rejected = 0
    /// What the files hold that the program was compiled from, by path.
    var files: [String: UInt64] = [:]
    /// Of a node that keeps desired state, in place of ``state``; nil: its source tells by itself.
    var update: ReadUpdate?
    /// Without its routes file; nil: that is not watched.
    var base: ConfigBase?
    /// A watched routes file as it was read.
    var seen: SeenRoutes?

    /// The documents to apply together. A state file that is no longer named counts as empty.
    var documents: [StateDocument] { [blocks, state ?? .empty(.state)] }
}

/// Loads a config file and everything that it names (R22, R24).
///
/// Problems in the config file, its `route` blocks included, are errors. A state file that can't be used as a whole is
/// an error too; one bad object in it is a warning, and the rest runs. Each is a diagnostic of the config file:
/// problems of the state file are reported at its `routes file` line, with their own position.
package enum ConfigLoader {
    package typealias ReadState = (String) throws(FileError) -> [UInt8]

    /// The largest state file that is read, in bytes; a route takes about 300 of them.
    package static let stateFileLimit = 1 << 30
    /// The largest file of a set or of names that is read, in bytes: a million prefixes take about 20 MB.
    package static let listFileLimit = 64 << 20
    /// How many problems of the state file are shown; the rest are counted.
    static let shownProblems = 100

    /// - Throws: if the config file itself can't be read.
    /// - Parameter open: for a node that is to run: opens the store of its desired state, if it has one.
    package static func load(
        _ path: String, filters: [any Filter.Type] = catalog, keeping open: OpenKept? = nil
    ) throws(FileError) -> LoadedConfig {
        load(try Files.read(path, limit: SourceText.limit), file: path, filters: filters, keeping: open)
    }

    package static func readStateFile(_ path: String) throws(FileError) -> [UInt8] {
        try Files.read(path, limit: stateFileLimit)
    }

    /// - Parameters:
    ///   - file: the path, for diagnostics and for what the text names relative to it.
    ///   - readState: reads a state file.
    package static func load(
        _ text: [UInt8], file: String, filters: [any Filter.Type] = catalog,
        readState: ReadState = ConfigLoader.readStateFile, keeping open: OpenKept? = nil
    ) -> LoadedConfig {
        var read = read(text, file: file, filters: filters, readState: readState, keepsState: open != nil)
        var fault: String?
        if let open, let program = read.compilation.program, program.node.stateDirectory != nil {
            if let loaded = load(&read, program, open, &fault) { return loaded }
            // Routes are served all the same, by what their source says and nothing before.
            read.readState(read.seed, readState)
        }
        var loaded = loadFresh(&read)
        loaded.node?.stateFault = fault
        return loaded
    }

    /// By what the config and its files say, and nothing before.
    static func loadFresh(_ read: inout ReadConfig) -> LoadedConfig {
        let routing = RoutingState(seed: read.seed)
        if let program = read.compilation.program { ListenerPlan.prepare(routing, for: program) }
        let report = routing.apply(together: read.documents)
        read.report(applied: report.problems)
        var loaded = LoadedConfig(compilation: read.compilation, node: nil)
        loaded.leftOut = read.rejected + report.problems.rejected
        guard let program = read.compilation.program, !loaded.hasErrors else { return loaded }
        loaded.node = node(of: read, program, routing, revision: read.state?.revision)
        loaded.node?.reading = read.reading
        loaded.node?.bound = read.bound(program)
        loaded.node?.found = report.problems
        return loaded
    }

    private static func node(
        of read: ReadConfig, _ program: Program, _ routing: RoutingState, revision: UInt64?
    ) -> LoadedNode {
        var node = LoadedNode(
            program: program, routing: routing, listeners: ListenerPlan.listeners(program, RequestedPorts(routing)),
            revision: revision)
        node.guarded = ConfigGuard.Reading(read.compilation)
        node.blocks = read.blocks
        node.identity = ProgramIdentity(program, read)
        node.problems = RunningNode.lines(read.compilation)
        node.files = read.compilation.source.files
        (node.base, node.seen) = (read.base, read.seen)
        return node
    }

    /// Nil: the store can't be used, for the reason in `fault`.
    /// - Parameter takesSource: as ``restore(_:_:_:_:takesSource:)``.
    static func load(
        _ read: inout ReadConfig, _ program: Program, _ open: OpenKept, _ fault: inout String?, takesSource: Bool = true
    ) -> LoadedConfig? {
        let restored =
            read.compilation.hasErrors ? nil : restore(&read, program, open, &fault, takesSource: takesSource)
        guard fault == nil else { return nil }
        var loaded = LoadedConfig(compilation: read.compilation, node: nil)
        guard let (routing, desired) = restored, !loaded.hasErrors else { return loaded }
        loaded.node = node(of: read, program, routing, revision: desired.last?.revision)
        loaded.node?.bound = routing.boundAddresses(of: desired.kept.objects)
        loaded.node?.desired = StateInHand(desired)
        return loaded
    }

    /// The compiled file alone, for commands that must work without desired state.
    package static func compileAlone(
        _ text: [UInt8], file: String, filters: [any Filter.Type] = catalog
    ) -> Compilation {
        compiled(text, file: file, filters, reusingBlocksOf: nil)
    }

    /// - Throws: if the config file itself can't be read.
    package static func compileAlone(
        _ path: String, filters: [any Filter.Type] = catalog
    ) throws(FileError) -> Compilation {
        compileAlone(try Files.read(path, limit: SourceText.limit), file: path, filters: filters)
    }

    /// Reads and checks everything, without touching the running node.
    /// - Parameter running: the running program, whose unchanged limits the new one reuses.
    static func read(
        _ text: [UInt8], file: String, filters: [any Filter.Type], running: Program? = nil,
        readState: ReadState = ConfigLoader.readStateFile, keepsState: Bool = false
    ) -> ReadConfig {
        let seen = FilesSeen()
        var compilation = compiled(text, file: file, filters, reusingBlocksOf: running, noting: seen)
        let seed = HashSeed.random()
        // The routes of a file with errors are checked as well, though not against listeners, so that all errors are
        // reported at once.
        let judge = RoutingState(seed: seed, listeners: compilation.program.map(ListenerPlan.facts))
        if let program = compilation.program { ListenerPlan.prepare(judge, for: program) }
        let blocks = RouteBlocks.judge(judge, seed, &compilation)
        compilation.remarkOnLongQueues()
        var read = ReadConfig(compilation: compilation, seed: seed, blocks: blocks)
        read.files = seen.digests
        if compilation.watchesRoutes { read.base = ConfigBase(compilation: compilation, seed: seed, blocks: blocks) }
        if keepsState, read.compilation.program?.node.stateDirectory != nil {
            read.readUpdate(readState)
        } else {
            read.readState(seed, readState)
        }
        return read
    }

    /// What outlives a reload: unchanged blocks (limits and their tables) of the running program are reused.
    private static func compiled(
        _ text: [UInt8], file: String, _ filters: [any Filter.Type], reusingBlocksOf running: Program?,
        noting seen: FilesSeen = FilesSeen()
    ) -> Compilation {
        compile(
            text, file: file, catalog: filters, reusing: running?.blocks ?? BlockTable(), includes: includes,
            hostGroups: HostGroups(isKnown: { Groups.find($0) != .unknown }, names: { Groups.names })
        ) { path throws(UnreadableFile) in seen.note(path, try readFile(path, limit: listFileLimit)) }
    }

    private static var includes: ConfigFiles {
        ConfigFiles(
            match: { pattern, directory throws(UnreadableFile) in
                do throws(FileError) {
                    return try Files.matching(pattern, in: directory, limit: matchLimit)
                } catch {
                    throw UnreadableFile(error)
                }
            },
            identity: Files.identity,
            read: { path throws(UnreadableFile) in try readFile(path, limit: SourceText.limit) })
    }
    /// How many paths a pattern may match: more than a config may include.
    private static let matchLimit = 4096

    private static func readFile(_ path: String, limit: Int) throws(UnreadableFile) -> [UInt8] {
        do throws(FileError) {
            return try Files.read(path, limit: limit)
        } catch {
            throw UnreadableFile(error)
        }
    }
}

// MARK: The state file

extension ReadConfig {
    mutating func readState(_ seed: HashSeed, _ read: ConfigLoader.ReadState) {
        guard let named = compilation.routesFile else { return }
        let path = configPath(named.value, from: compilation.source.file(of: named.span.start))
        stateFile = (path, named)
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try see(path, read)
        } catch {
            compilation.report(
                Diagnostic(
                    .error, at: named.span, "can't read the state file \(error.path): \(error.problem)",
                    help: [error.remedy]))
            return
        }
        let (document, problems) = bytes.withUnsafeBufferPointer { StateDocument.parse($0, seed: seed) }
        state = document
        reading = document.map { StateOrder.Reading($0, bytes, path: path) }
        rejected = problems.rejected
        report(problems)
    }

    /// Reads the file, and remembers what it was if it is watched.
    mutating func see(_ path: String, _ read: ConfigLoader.ReadState) throws(FileError) -> [UInt8] {
        guard base != nil else { return try read(path) }
        let sight = PathTrail(path).end
        seen = SeenRoutes(sight: sight, content: nil)
        let bytes = try read(path)
        seen = SeenRoutes(sight: sight, content: StateOrder.hash(bytes))
        return bytes
    }

    func bound(_ program: Program) -> [BoundAddress] { state?.boundAddresses(node: program.node.name) ?? [] }

    /// The document reuses the revision of a different one.
    mutating func reportReused() {
        guard let (path, named) = stateFile, let revision = state?.revision else { return }
        compilation.report(
            Diagnostic(
                .warning, at: named.span,
                "revision_reused: \(path) has the revision \(revision) of the previous document, but other content",
                help: ["raise the revision with each change"]))
    }

    /// Adds problems found by applying ``documents``. Problems of `route` blocks alone were reported before; conflicts
    /// with the state file are added here.
    mutating func report(applied problems: RouteProblems) {
        var ofState = RouteProblems()
        for problem in problems.list {
            guard case .config? = problem.origin else {
                ofState.add(problem)
                continue
            }
            guard problem.severity == .rejected, !compilation.hasErrors else { continue }
            compilation.report(
                Diagnostic(.warning, at: SourceSpan(0, 0), "left out: \(problem)", help: [problem.remedy]))
        }
        ofState.noteOmitted(of: problems)
        report(ofState)
    }

    /// Adds problems of the state file's objects to the diagnostics.
    mutating func report(_ problems: RouteProblems) {
        guard let (path, named) = stateFile else { return }
        let fatal = problems.list.dropFirst(ConfigLoader.shownProblems).filter { $0.severity == .fatal }
        for problem in problems.list.prefix(ConfigLoader.shownProblems) + fatal {
            var place = path
            if case .file(let line, let column)? = problem.origin, line > 0 { place += ":\(line):\(column)" }
            let text =
                problem.object == .document ? problem.problem : ConfigLoader.sentence(problem, id: problem.id)
            compilation.report(
                Diagnostic(
                    problem.severity == .fatal ? .error : .warning, at: named.span,
                    problem.severity == .rejected ? "\(place): left out: \(text)" : "\(place): \(text)",
                    help: [problem.remedy]))
        }
        let rest = problems.omitted + max(0, problems.list.count - ConfigLoader.shownProblems)
        if rest > 0 {
            compilation.report(
                Diagnostic(.warning, at: named.span, "\(path): \(rest) more problems like these are not shown"))
        }
    }
}

extension UnreadableFile {
    fileprivate init(_ error: FileError) {
        self.init(path: error.path, problem: error.problem, remedy: error.remedy)
    }
}
