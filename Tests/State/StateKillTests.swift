import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineState

@Suite("a store and SIGKILL")
struct StateKillTests {
    private static let kills = ProcessInfo.processInfo.environment["STATE_KILLS"].flatMap { Int($0) } ?? 500

    /// Beside the bundle of the tests.
    private static func program() throws -> String {
        let place = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let candidates = CommandLine.arguments.prefix(1) + [place]
        for path in candidates {
            var folder = URL(fileURLWithPath: path)
            for _ in 0..<6 {
                folder.deleteLastPathComponent()
                let found = folder.appendingPathComponent("state-writer").path
                if access(found, X_OK) == 0 { return found }
            }
        }
        throw Failure("there is no state-writer beside \(candidates)")
    }

    /// - Returns: the numbers that it said, the first one at its opening.
    private static func runAndKill(_ program: String, _ directory: String, after microseconds: UInt64) throws
        -> [UInt32]
    {
        var ends: [Int32] = [-1, -1]
        guard cl_make_barrier(&ends) == 0 else { throw Failure(call: "pipe") }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        var argv: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup(directory), nil]
        defer { for pointer in argv { free(pointer) } }
        var pid: pid_t = 0
        let error = posix_spawn(&pid, program, &actions, nil, &argv, environ)
        close(ends[1])
        defer { close(ends[0]) }
        guard error == 0 else { throw Failure(call: "start \(program)", error) }
        var bytes: [UInt8] = []
        var end: UInt64?
        var isKilled = false
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(ends[0], &chunk, chunk.count)
            if count <= 0 { break }
            bytes += chunk[..<count]
            let now = Deadline.now()
            if end == nil { end = now + microseconds * 1000 }
            if let end, now >= end, !isKilled {
                isKilled = true
                kill(pid, SIGKILL)
            }
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        guard isKilled else { throw Failure("it ended by itself: \(status)") }
        return stride(from: 0, to: bytes.count / 4 * 4, by: 4).map { place in
            bytes[place..<(place + 4)].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    @Test(
        "R23: killed again and again while it appends, replaces and compacts: all that was said is there",
        .timeLimit(.minutes(5)))
    func killed() throws {
        let program = try Self.program()
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("state-\(UUID().uuidString)").path
        // In memory if possible: a process that dies is what is asked about, not a disk.
        let directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm/state-\(UUID().uuidString)" : folder
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var random = SplitMix64(seed: 17)
        var last: UInt32 = 0
        var cut = 0
        for round in 0..<Self.kills {
            let said = try Self.runAndKill(program, directory, after: UInt64(random.below(4000)))
            let first = try #require(said.first)
            #expect(first == last, "round \(round)")
            let place = StatePlace(directory: directory, disk: LinuxDisk())
            let (store, notices) = try StateStore.open(place, seed: { testSecret })
            let bad = notices.filter { $0.event != "state_tail_cut" && $0.event != "state_created" }
            #expect(bad.isEmpty, "round \(round): \(bad)")
            cut += notices.contains { $0.event == "state_tail_cut" } ? 1 : 0
            func number(_ kind: UInt8, _ id: String) -> UInt32 {
                guard let bytes = store.value(StateKey(kind, id)), bytes.count == 4 else { return 0 }
                return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
            }
            last = number(1, "last")
            let most = said.last ?? 0
            #expect(last == most || last == most + 1, "round \(round): \(last) after \(most) was said")
            // One change is all of a batch.
            for key in 0..<37 as Range<UInt32> {
                let expected = last >= key ? last - (last - key) % 37 : 0
                #expect(number(2, "key-\(key)") == expected, "round \(round), key \(key)")
            }
        }
        #expect(last > UInt32(Self.kills))
        print("\(Self.kills) kills, \(last) changes, \(cut) torn tails")
    }
}
