import FilterCatalog
import Foundation
import Pipeline
import PipelineLanguage
import Testing

@testable import PipelineControl

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
