import Foundation
import PipelineRouting
import PipelineState
import TestSupport
import Testing

@testable import PipelineLastGood

@Suite("R29: the boot guard's mark, and what is behind it") struct BootMarkTests {
    private static let folder = FileManager.default.temporaryDirectory.path

    private static func directory() -> String { "\(folder)/boot-\(UUID().uuidString)" }

    private func update(_ revision: Int, _ routes: [String]) throws -> StateUpdate {
        let list = routes.map { "{\"route_id\":\"\($0)\"}" }.joined(separator: ",")
        let text = Array(
            "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"envs\":[],\"instances\":[],\"routes\":[\(list)]}"
                .utf8)
        return try #require(StateUpdate.read(copying: text, as: .document).update)
    }

    private func keep(_ state: LastGood, _ update: StateUpdate) throws {
        try state.keep(try state.prepare(update, from: "push", UpdateOptions(isConfirmed: true), now: 1))
    }

    private func open(_ directory: String) throws -> LastGood { try LastGood.openForStart(directory, now: 5).state }

    @Test(
        "each pair of starts that ends goes one update back, to nothing at last, and forgets no update that was ready")
    func steps() throws {
        let directory = Self.directory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do {
            let state = try open(directory)
            for revision in 1...3 { try keep(state, try update(revision, (0..<revision).map { "r\($0)" })) }
            state.startIsReady()
        }
        for expected in [3, 3, 2, 2, 1, 1, 0, 0, 0] {
            let state = try open(directory)
            #expect(state.count(.route) == expected)
            #expect(state.last?.revision == (expected == 0 ? nil : UInt64(expected)))
            #expect((state.setAside?.revision).map(Int.init) == (expected == 3 ? nil : expected + 1))
        }
        // None of them comes again by itself: a file that has one would end the next starts.
        for revision in 1...3 {
            let state = try open(directory)
            let again = try update(revision, (0..<revision).map { "r\($0)" })
            #expect(throws: UpdateRefusal.self) { try state.prepare(again, from: "file /x", now: 1) }
        }
        // From there it goes on.
        do {
            let state = try open(directory)
            try keep(state, try update(4, ["a", "b"]))
            #expect(state.setAside == nil)
            state.startIsReady()
        }
        for _ in 0..<3 {
            let state = try open(directory)
            #expect(state.count(.route) == 2)
            state.startIsReady()
        }
    }

    @Test("a start that ends in order takes back what it counted, and no more") func inOrder() throws {
        let directory = Self.directory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do {
            let state = try open(directory)
            try keep(state, try update(1, ["a"]))
            try keep(state, try update(2, ["a", "b"]))
            state.startIsReady()
        }
        _ = try open(directory)
        for _ in 0..<3 { try open(directory).startEndedInOrder() }
        #expect(try open(directory).count(.route) == 2)
        #expect(try open(directory).count(.route) == 1)
    }

    @Test(
        "a new update within a start begins the count anew; the one that is set aside does not come again unconfirmed")
    func anew() throws {
        let directory = Self.directory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do {
            let state = try open(directory)
            try keep(state, try update(1, ["a"]))
            state.startIsReady()
        }
        _ = try open(directory)
        // The second start takes a file that was changed, and ends in it.
        try keep(try open(directory), try update(2, ["a", "b"]))
        #expect(try open(directory).count(.route) == 2)
        let state = try open(directory)
        #expect(state.count(.route) == 1 && state.setAside?.name == "revision 2 from push")
        let again = try update(2, ["a", "b"])
        #expect(throws: UpdateRefusal.self) { try state.prepare(again, from: "push", now: 1) }
        _ = try state.prepare(again, from: "push", UpdateOptions(isConfirmed: true), now: 1)
        _ = try state.prepare(try update(2, ["a", "c"]), from: "push", now: 1)
    }

    @Test("the mark is read as it was written; cut or changed anywhere it is another one or none, and never a trap")
    func mark() throws {
        let mark = BootMark(
            update: 7, starts: 2,
            aside: SetAside(revision: 43, source: "file /x y", actor: "a@b", at: 9, digests: [11, 12]))
        #expect(BootMark(mark.bytes) == mark)
        let bare = BootMark(update: 7, starts: 1)
        #expect(BootMark(bare.bytes) == bare)
        for length in 0..<mark.bytes.count {
            let cut = BootMark(Array(mark.bytes[..<length]))
            #expect(cut?.aside != mark.aside, "\(length)")
        }
        for index in mark.bytes.indices {
            for byte in [0, 0x0A, 0x20, 0x39, 0xFF] as [UInt8] {
                var bytes = mark.bytes
                bytes[index] = byte
                _ = BootMark(bytes)
            }
        }
    }

    @Test(
        "a mark that others could have written counts as none; where nobody could reach it, it counts",
        arguments: [(0o711, 2), (0o700, 1)])
    func foreign(_ mode: Int, _ routes: Int) throws {
        let directory = Self.directory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do {
            let state = try open(directory)
            try keep(state, try update(1, ["a"]))
            try keep(state, try update(2, ["a", "b"]))
            state.startIsReady()
        }
        _ = try open(directory)
        _ = try open(directory)
        try FileManager.default.setAttributes([.posixPermissions: 0o666], ofItemAtPath: "\(directory)/boot")
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: directory)
        #expect(try open(directory).count(.route) == routes)
    }
}
