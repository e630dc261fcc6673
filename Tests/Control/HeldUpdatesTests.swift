import Pipeline
import PipelineLastGood
import PipelineRouting
import Testing

@testable import PipelineNode

@Suite("R29: what waits behind a held update")
struct HeldUpdatesTests {
    private static let seed = HashSeed(1, 2)
    private let last = LastUpdate(source: "push", revision: 7, actor: "", at: 0)
    private let now = Instant(nanoseconds: 1)

    private func item(
        _ revision: Int?, base: Int? = nil, isOlder: Bool = false, put: String = "", spaces: Int = 0
    ) throws -> HeldUpdates.Item {
        let text =
            "{\"format\":\"pipelined.change/1\"" + (revision.map { ",\"revision\":\($0)" } ?? "")
            + (base.map { ",\"base\":\($0)" } ?? "") + ",\"put\":{\(put)}}" + String(repeating: " ", count: spaces)
        let upload = try #require(StateUpload(length: text.utf8.count))
        Array(text.utf8).withUnsafeBytes { upload.append($0) }
        let update = try #require(StateUpdate.read(upload.bytes, keptBy: upload, as: .either).update)
        return HeldUpdates.Item(
            upload: upload, push: StatePush(peer: nil, isOlder: isOlder), update: update, unread: RouteProblems(),
            taking: TakingAway(of: update, seed: Self.seed))
    }

    private func held() throws -> HeldUpdates {
        var held = HeldUpdates()
        held.hold(try item(8), HeldUpdates.Head(id: "held-1", why: "it removes all", since: 1, stopsStream: true))
        return held
    }

    @Test("bases and revisions are compared with what stands before it in the line")
    func order() throws {
        var held = try held()
        #expect(!held.isReleasing && held.waiting == 0 && held.due == nil)
        #expect(held.refusal(of: try item(9, base: 7), behind: last, "push")?.problem.contains("revision 8") ?? false)
        #expect(held.refusal(of: try item(7), behind: last, "push") != nil)
        #expect(held.refusal(of: try item(7, isOlder: true), behind: last, "push") == nil)
        for (item, base) in [(try item(9, base: 8), 9), (try item(nil), 9), (try item(12), 12)] {
            #expect(held.refusal(of: item, behind: last, "push") == nil)
            held.append(item)
            #expect(held.isLast(item))
            #expect(held.refusal(of: try self.item(20, base: base), behind: last, "push") == nil)
            #expect(held.refusal(of: try self.item(20, base: 7), behind: last, "push")?.isPassing == false)
        }
        let first = try item(9, base: 8)
        #expect(held.waiting == 3 && !held.isLast(first))
        #expect(!(held.first?.upload.isPending ?? true))
    }

    @Test("so many wait, and so many bytes: more is refused, passing, with what helps")
    func bounds() throws {
        var held = try held()
        for _ in 0..<HeldUpdates.mostWaiting {
            let item = try item(nil)
            #expect(held.refusal(of: item, behind: last, "push") == nil)
            held.append(item)
        }
        let refusal = try #require(held.refusal(of: try item(nil), behind: last, "push"))
        #expect(
            refusal.isPassing && refusal.problem.contains("1000 updates") && refusal.remedy.contains("--discard held-1")
        )
        held = try self.held()
        let half = HeldUpdates.mostBytes / 2
        for _ in 0..<1 { held.append(try item(nil, spaces: half)) }
        #expect(held.refusal(of: try item(nil, spaces: half), behind: last, "push")?.isPassing ?? false)
        #expect(held.refusal(of: try item(nil, spaces: half - 1000), behind: last, "push") == nil)
    }

    @Test("once the first is decided about, the others follow in order; a guard may hold one of them")
    func release() throws {
        var held = try held()
        for revision in 9...12 { held.append(try item(revision)) }
        held.removeFirst(now)
        #expect(held.isReleasing && held.waiting == 4 && held.due == now && held.head == nil)
        #expect(held.refusal(of: try item(13), behind: last, "push")?.isPassing ?? false)
        #expect(held.first?.update.revision == 9)
        held.took(now)
        held.took(now, refused: "why")
        #expect(held.first?.update.revision == 11)
        let head = HeldUpdates.Head(id: "held-2", why: "again", since: 2, stopsStream: true)
        held.hold(head)
        #expect(!held.isReleasing && held.head == head && held.waiting == 1 && held.due == nil)
        #expect(held.takeReleased() == HeldUpdates.Released(taken: 1, refused: 1, why: "why"))
        #expect(held.takeReleased() == nil)
        held.removeFirst(now)
        held.took(now)
        #expect(held.isEmpty && held.due == nil && held.takeReleased()?.taken == 1)
    }

    @Test("the first is applied with what later ones take away")
    func amended() throws {
        let object =
            "\"instances\":[{\"instance_id\":\"i\",\"env_id\":\"e\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
        var held = HeldUpdates()
        held.hold(
            try item(8, put: object + "\"status\":\"ready\"}]"),
            HeldUpdates.Head(id: "held-1", why: "", since: 1, stopsStream: true))
        held.append(try item(9, put: object + "\"status\":\"failed\"}]"))
        held.append(try item(10, put: object + "\"status\":\"ready\"}]"))
        var texts: [String] = []
        for _ in 0..<3 {
            held.firstToApply(seed: Self.seed)?.forEachPut { texts.append(String(decoding: $2, as: UTF8.self)) }
            held.removeFirst(now)
        }
        #expect(texts.map { $0.contains("failed") } == [true, true, false])
        #expect(held.firstToApply(seed: Self.seed) == nil)
    }
}
