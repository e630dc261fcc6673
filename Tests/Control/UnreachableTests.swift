import CLinux
import FilterCatalog
import Foundation
import Pipeline
import PipelineLanguage
import TestSupport
import Testing

@testable import PipelineIntercept

/// Where nothing answers: what is asked of the kernel, and that it never is too much.
@Suite("Destinations that do not answer") struct UnreachableTests {
    private static func proof(
        _ number: Int, of instance: UInt32 = InstanceIdentity.unknown, isIPv4: Bool = false, peer: UInt64 = 1
    ) throws -> UnreachableProof {
        var record = ConnectionRecord()
        let address =
            isIPv4 ? IPAddress(v4: UInt32(number) | 0x0A00_0000) : IPAddress(high: 0xFD << 56, low: UInt64(number))
        record.destination = Endpoint(address, 443)
        record.peer = Endpoint(IPAddress(high: peer, low: 7), 40000)
        record.instanceNumber = instance
        record.unreachableFor = .seconds(30)
        return try #require(UnreachableProof(record))
    }

    private let start = Instant(nanoseconds: 1_000_000_000_000)

    @Test("a connection that had an answer proves nothing") func proofs() {
        #expect(UnreachableProof(ConnectionRecord()) == nil)
    }

    @Test("what is known is not prolonged; what ran out may come again") func time() throws {
        var book = UnreachableBook()
        let proof = try Self.proof(1)
        #expect(book.admit(proof, start) == .new)
        #expect(book.admit(proof, start + .seconds(20)) == .known)
        book.expire(start + .seconds(29))
        #expect(book.count == 1)
        book.expire(start + .seconds(30))
        #expect(book.count == 0)
        #expect(book.admit(proof, start + .seconds(30)) == .new)
        book.forget(proof.destination)
        #expect(book.admit(proof, start + .seconds(30)) == .new)
    }

    @Test("R27: an instance, or a network of unknown ones, brings in so many at once, and others still do")
    func shares() throws {
        for instance in [3, InstanceIdentity.unknown] as [UInt32] {
            var book = UnreachableBook()
            let answers = try (0..<200).map { book.admit(try Self.proof($0, of: instance, peer: 1), start) }
            #expect(answers.count { $0 == .new } == UnreachableBook.share)
            let other: UInt32 = instance == 3 ? 4 : instance
            #expect(book.admit(try Self.proof(500, of: other, peer: 2), start) == .new)
            book.expire(start + .seconds(30))
            #expect(book.admit(try Self.proof(199, of: instance, peer: 1), start) == .new)
        }
    }

    @Test("R27: however many there are, each family's set keeps room") func full() throws {
        var book = UnreachableBook()
        var new = (0, 0)
        for number in 0..<5000 {
            if book.admit(try Self.proof(number, of: UInt32(number / 50)), start) == .new { new.0 += 1 }
            if book.admit(try Self.proof(number, of: UInt32(number / 50), isIPv4: true), start) == .new { new.1 += 1 }
        }
        #expect(new.0 == UnreachableBook.limit && new.1 == UnreachableBook.limit)
        #expect(UnreachableBook.limit < EgressRules.unreachableSize)
    }

    @Test("what answered after a failed connect began is known, and nothing that went elsewhere")
    func answers() throws {
        var record = ConnectionRecord()
        record.destination = Endpoint(IPAddress(high: 0xFD << 56, low: 1), 443)
        record.endedAt = 100_000_000_000
        record.duration = .seconds(3)
        record.timeToConnect = .seconds(1)
        #expect(AnsweredPath(record) == nil)
        record.isRelayed = true
        record.backend = Endpoint(IPAddress(high: 0xFD << 56, low: 2), 443)
        #expect(AnsweredPath(record) == nil)
        record.backend = record.destination
        let path = try #require(AnsweredPath(record))
        #expect(path.time == 98_000_000_000)
        record.unreachableFor = .seconds(30)
        #expect(try #require(UnreachableProof(record)).began == 97_000_000_000)
        var paths = AnsweredPaths()
        #expect(paths.last(path.destination) == 0)
        paths.note(path.destination, at: path.time, by: path.asker, record.endedAt)
        paths.note(path.destination, at: path.time - 5, by: path.asker, record.endedAt)
        #expect(paths.last(path.destination) == path.time)
    }

    @Test("R27: answers are kept for a minute at least and two at most; nobody pushes out what others have found")
    func answersAreBounded() throws {
        let place = { (number: Int) in Endpoint(IPAddress(high: 0xFD << 56, low: UInt64(number)), 443) }
        var paths = AnsweredPaths()
        let second: UInt64 = 1_000_000_000
        let start = 1000 * second
        paths.note(place(1), at: start, by: .instance(1), start)
        for number in 2..<10_000 { paths.note(place(number), at: start, by: .instance(2), start + 59 * second) }
        #expect(paths.last(place(1)) == start && paths.count == 1 + AnsweredPaths.share)
        paths.note(place(2), at: start, by: .instance(2), start + 61 * second)
        #expect(paths.last(place(1)) == start)
        paths.note(place(3), at: start, by: .instance(2), start + 122 * second)
        #expect(paths.last(place(1)) == 0)
        for number in 0..<20_000 {
            paths.note(place(number), at: start, by: .instance(UInt32(number / 100)), start + 123 * second)
            if number == 5000 { #expect(paths.last(place(5000)) == start && paths.last(place(3500)) == start) }
        }
        #expect(paths.count <= 2 * AnsweredPaths.limit)
        #expect(paths.last(place(19_999)) == start)
    }

    @Test(
        "the kernel says which of many destinations open connections have heard of, and when",
        .enabled(if: Sandbox.isPossible, "needs root, network namespaces and nft"))
    func established() throws {
        try Sandbox.run { _ in
            let paths = try #require(EstablishedPaths.open())
            for (text, isIPv4) in [("fd77::20", false), ("10.77.0.2", true)] {
                let address = try #require(IPAddress(text))
                let listener = try Stream(at: address, 9000)
                let many = (1...UnreachableSets.batch).map { Endpoint(address, UInt16(9000 - 100 + $0)) }
                let before = paths.ask(many, isIPv4: isIPv4)
                #expect(before.error == 0 && before.isWhole && before.heard.isEmpty, "\(before)")
                let began = Instant(nanoseconds: cl_now())
                let client = try Stream(to: address, 9000)
                let after = paths.ask(many, isIPv4: isIPv4)
                #expect(after.isWhole && Array(after.heard.keys) == [Endpoint(address, 9000)], "\(after)")
                let heard = try #require(after.heard.values.first)
                // The kernel's clock of this has a coarse tick.
                #expect(heard.nanoseconds <= Instant(nanoseconds: cl_now()).since(began).nanoseconds + 20_000_000)
                let connected = Instant(nanoseconds: cl_now())
                try awaitUntil("it is 300 ms ago, by the kernel's clock as by ours") {
                    let passed = Instant(nanoseconds: cl_now()).since(connected).nanoseconds
                    let later = paths.ask([Endpoint(address, 9000)], isIPv4: isIPv4)
                    let heard = try #require(later.heard.values.first).nanoseconds
                    #expect(heard + 20_000_000 >= passed, "\(heard) ns ago, of \(passed)")
                    return heard >= 300_000_000
                }
                withExtendedLifetime((listener, client)) {}
            }
        }
    }

    @Test(
        "the kernel takes a whole batch of each family, and says why it takes none",
        .enabled(if: Sandbox.isPossible, "needs root, network namespaces and nft"))
    func kernel() throws {
        let text =
            "node n {\nintercept interface vm*\n}\npipeline out {\nanti_spoof source assigned\n"
            + "backend original_destination\n}\nlisten [::]:1 transparent via out\nlisten 0.0.0.0:1 transparent via out\n"
        let rules = try EgressRules(try #require(compile(Array(text.utf8), file: "t", catalog: catalog).program))
        try Sandbox.run { _ in
            let sets = try #require(UnreachableSets.open().sets)
            let batch = { (first: Int, isIPv4: Bool) in
                try (first..<first + UnreachableSets.batch).map { try Self.proof($0, isIPv4: isIPv4) }
            }
            #expect(sets.add(try batch(0, false)[...], isIPv4: false) == ENOENT)
            try Sandbox.command("nft", [rules.nftables])
            for isIPv4 in [false, true] {
                #expect(sets.add(try batch(0, isIPv4)[...], isIPv4: isIPv4) == 0)
                // Known ones are no error.
                #expect(sets.add(try batch(100, isIPv4)[...], isIPv4: isIPv4) == 0)
            }
            // Fails unless it is there.
            for (set, element) in [("6", "fd00::"), ("6", "fd00::e3"), ("4", "10.0.0.0"), ("4", "10.0.0.227")] {
                try Sandbox.command("nft", ["get element inet pipelined unreachable\(set) { \(element) . 443 }"])
            }
            NetAdmin.set(false)
            #expect(sets.add(try batch(300, false)[...], isIPv4: false) == EPERM)
            NetAdmin.set(true)
            var first = 228
            while first + UnreachableSets.batch <= EgressRules.unreachableSize {
                #expect(sets.add(try batch(first, false)[...], isIPv4: false) == 0)
                first += UnreachableSets.batch
            }
            #expect(sets.add(try batch(first, false)[...], isIPv4: false) == ENFILE)
            #expect(sets.add(try batch(228, true)[...], isIPv4: true) == 0, "the other one has room")
        }
    }
}
