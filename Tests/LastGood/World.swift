import Glibc
import Pipeline
import PipelineRouting
import TestSupport

@testable import PipelineLastGood
@testable import PipelineState

/// Desired state as a control plane has it, and how it tells of it.
struct World {
    /// By kind and id; several objects of one id are joined.
    private(set) var objects: [StateKind: [String: String]] = [:]
    private(set) var changed: [StateKind: Set<String>] = [:]
    var revision = 0

    mutating func set(_ kind: StateKind, _ id: String, _ text: String?) {
        guard objects[kind]?[id] != text else { return }
        objects[kind, default: [:]][id] = text
        changed[kind, default: []].insert(id)
    }

    mutating func told() { changed = [:] }

    var document: String {
        let lists = StateKind.allCases.map { kind in
            "\"\(kind.list)\":[\((objects[kind] ?? [:]).sorted { $0.key < $1.key }.map(\.value).joined(separator: ","))]"
        }
        return "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\(lists.joined(separator: ","))}"
    }

    /// What was changed since it was told last.
    var change: String {
        var (put, gone): ([String], [String]) = ([], [])
        for (kind, ids) in changed {
            let there = ids.compactMap { objects[kind]?[$0] }
            let away = ids.filter { objects[kind]?[$0] == nil }
            if !there.isEmpty { put.append("\"\(kind.list)\":[\(there.joined(separator: ","))]") }
            if !away.isEmpty { gone.append("\"\(kind.list)\":[\(away.map { "\"\($0)\"" }.joined(separator: ","))]") }
        }
        return "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"put\":{\(put.joined(separator: ","))},"
            + "\"delete\":{\(gone.joined(separator: ","))}}"
    }
}

/// A node's control side: what it keeps, and what it serves.
final class Keeper {
    let directory: String
    private(set) var state: LastGood?
    private(set) var routing: RoutingState

    /// What the last start said.
    private(set) var said: [String] = []

    private let prepare: (RoutingState) -> Void
    private let tables: Int?

    /// - Parameters:
    ///   - tables: they are written of so many routes or more; nil: none is.
    ///   - prepare: what each start does before it goes on with what is kept.
    init(_ directory: String, tables: Int? = nil, prepare: @escaping (RoutingState) -> Void = { _ in }) throws {
        self.directory = directory
        self.prepare = prepare
        self.tables = tables
        (state, routing, said) = try Keeper.start(directory, tables, prepare)
    }

    private static func start(
        _ directory: String, _ tables: Int?, _ prepare: (RoutingState) -> Void
    ) throws -> (LastGood, RoutingState, [String]) {
        let state = try LastGood.open(directory).state
        if let tables { state.useTables(least: tables) }
        let routing = RoutingState(seed: state.seed)
        routing.nodeName = "n1"
        prepare(routing)
        let report = state.restore(routing)
        return (state, routing, report.problems.list.map(\.description).sorted() + ["\(report.cooling)"])
    }

    /// As a process that is killed and started again.
    func restart() throws {
        state = nil
        (state, routing, said) = try Keeper.start(directory, tables, prepare)
    }

    /// As the node's timer, with time for its thread.
    func writeTable(withCompaction: Bool) throws {
        guard let state else { return }
        let over = Promise<Bool>()
        if withCompaction { state.store.wantsCopy = true }
        _ = state.tidy(routing) { over.fulfil(.success(true)) }
        guard state.isTidying else { return }
        _ = try over.value()
        _ = state.tidy(routing)
    }

    /// As the node's timer.
    func endCooldowns() {
        guard let now = routing.clock?().monotonic else { return }
        _ = state?.applyWaiting(to: routing, at: now)
    }

    /// - Parameter applies: false: it is killed before that.
    @discardableResult func take(
        _ text: String, from source: String = "push", _ options: UpdateOptions = UpdateOptions(isConfirmed: true),
        applies: Bool = true
    ) throws -> ApplyReport {
        let bytes = Array(text.utf8)
        return try bytes.withUnsafeBufferPointer { bytes in
            let (update, problems) = StateUpdate.read(bytes, as: .either)
            guard let update, let state else { throw Refused(problems: problems.list.map(\.description)) }
            let prepared = try state.prepare(update, from: source, options, now: 1)
            try state.keep(prepared)
            return applies ? state.apply(prepared, to: routing) : ApplyReport()
        }
    }

    /// The same of several, made durable as one group.
    /// - Returns: what each did; nil: it was refused.
    func takeGroup(
        _ texts: [String], _ options: UpdateOptions = UpdateOptions(isConfirmed: true), applies: Bool = true,
        between: (LastGood) throws -> Void = { _ in }
    ) throws -> [ApplyReport?] {
        guard let state else { return [] }
        let group = try state.makeGroup()
        var isTaken: [Bool] = []
        for text in texts {
            let update = try Update(text)
            do throws(UpdateRefusal) {
                try group.add(try state.prepare(update.read, from: "push", options, now: 1, behind: group))
                isTaken.append(true)
            } catch { isTaken.append(false) }
        }
        try state.handOver(group)
        try state.end(group)
        try between(state)
        guard applies else { return [] }
        var reports = state.apply(group, to: routing)[...]
        return isTaken.map { $0 ? reports.popFirst() : nil }
    }

    /// One that keeps its text.
    private final class Update {
        let read: StateUpdate
        private let memory: UnsafeMutableBufferPointer<UInt8>

        init(_ text: String) throws {
            let bytes = Array(text.utf8)
            memory = .allocate(capacity: bytes.count)
            _ = memory.initialize(from: bytes)
            let (update, problems) = StateUpdate.read(UnsafeBufferPointer(memory), as: .either)
            guard let update else { throw Refused(problems: problems.list.map(\.description)) }
            read = update
        }
        deinit { memory.deallocate() }
    }

    struct Refused: Error { let problems: [String] }
}

/// A directory of the test's, gone with it.
final class Folder {
    let path: String
    init() {
        var name = Array("\(getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp")/last-good-XXXXXX".utf8CString)
        path = name.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!).map { String(cString: $0) } ?? "" }
    }
    deinit {
        let all = "\(path)/state"
        if let folder = opendir(all) {
            while let entry = readdir(folder) {
                unlink(
                    "\(all)/\(withUnsafePointer(to: &entry.pointee.d_name) { String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self)) })"
                )
            }
            closedir(folder)
        }
        rmdir(all)
        rmdir(path)
    }
    var state: String { "\(path)/state" }
}
