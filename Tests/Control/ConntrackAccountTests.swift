import Pipeline
import PipelineFlows
import Testing

@testable import PipelineExport

/// What is counted of what conntrack says: each byte once (R21).
@Suite("conntrack: accounting") struct ConntrackAccountTests {
    private static let us = IPAddress(v4: 0x0A00_0001)
    private static let them = IPAddress(v4: 0xC633_6401)

    private static func entry(
        _ id: UInt32, _ out: UInt64?, _ into: UInt64?, from: IPAddress = us, port: UInt16 = 53, proto: UInt8 = 17,
        start: UInt64 = 0, stop: UInt64 = 0
    ) -> ConntrackEntry {
        var entry = ConntrackEntry()
        entry.id = id
        entry.original = .init(
            source: from, destination: them, sourcePort: UInt16(truncatingIfNeeded: id), destinationPort: port,
            proto: proto)
        entry.reply = .init(
            source: them, destination: from, sourcePort: port, destinationPort: UInt16(truncatingIfNeeded: id),
            proto: proto)
        (entry.originalBytes, entry.replyBytes, entry.start, entry.stop) = (out, into, start, stop)
        return entry
    }

    /// One that has a baseline already.
    private static func running(_ settings: ConntrackSettings = ConntrackSettings()) -> ConntrackAccount {
        var account = ConntrackAccount(settings, countsFrom: 1000) { $0 == us ? 4 : nil }
        account.show([])
        return account
    }

    @Test("R21: growth, and not the counters themselves; a connection is counted once") func growth() throws {
        var account = Self.running()
        account.show([Self.entry(1, 100, 10)], now: 2000)
        let first = try #require(account.take().first)
        #expect(first.bytesOut == 100 && first.bytesIn == 10 && first.connections == 1 && first.origin == 0xFFFF)
        #expect(first.key == FlowKey(instance: 4, source: Self.us, destination: Self.them, port: 53, proto: 17))
        account.show([Self.entry(1, 100, 10)])
        #expect(account.take().isEmpty, "nothing has grown")
        account.show([Self.entry(1, 150, 10)])
        account.see(Self.entry(1, 175, 12, stop: 5000), isEnd: true, now: 6000)
        let second = try #require(account.take().first)
        #expect(second.bytesOut == 75 && second.bytesIn == 2 && second.connections == 0 && second.lastSeen == 5000)
        #expect(second.sequence == first.sequence + 1)
        #expect(account.tracked == 0)
    }

    @Test("short connections of one key add up in one record") func sums() throws {
        var account = Self.running()
        for id in 1...500 { account.see(Self.entry(UInt32(id), 60, 90), isEnd: true, now: 3000) }
        let records = account.take()
        #expect(records.count == 1)
        #expect(
            records.first?.connections == 500 && records.first?.bytesOut == 30_000 && records.first?.bytesIn == 45_000)
    }

    @Test("R21: what grew until an instance left is its own; what comes from its address later is the next one's")
    func leaving() throws {
        final class Owner { var number: UInt32? = 4 }
        let owner = Owner()
        var account = ConntrackAccount(ConntrackSettings(), countsFrom: 1000) { $0 == Self.us ? owner.number : nil }
        account.show([])
        account.show([Self.entry(1, 100, 10), Self.entry(2, 100, 10)])
        #expect(account.take().map(\.bytesOut) == [200])
        owner.number = nil
        // One ends, the other lives on.
        account.see(Self.entry(2, 130, 10, stop: 2000), isEnd: true, now: 2000)
        account.show([Self.entry(1, 150, 10), Self.entry(3, 999, 9)])
        let last = try #require(account.take().first)
        #expect(last.bytesOut == 80 && last.key.instance == 4 && last.connections == 0)
        account.show([Self.entry(1, 160, 10)])
        #expect(account.take().isEmpty, "nobody's")
        owner.number = 5
        account.show([Self.entry(1, 167, 10), Self.entry(4, 3, 0)])
        let next = try #require(account.take().first)
        #expect(next.bytesOut == 10 && next.key.instance == 5 && next.connections == 1)
    }

    @Test("R21: what was there before is a baseline; what began since is not") func baseline() throws {
        var account = ConntrackAccount(ConntrackSettings(), countsFrom: 1000) { _ in 0 }
        account.see(Self.entry(9, 5, 5), isEnd: true, now: 1500)
        account.show([Self.entry(1, 1_000_000, 7), Self.entry(2, 40, 4, start: 1000), Self.entry(3, 50, 5, start: 999)])
        let records = account.take()
        #expect(records.map(\.bytesOut) == [40] && records.map(\.connections) == [1])
        #expect(account.statistics.baselined == 3)
        account.show([Self.entry(1, 1_000_300, 7), Self.entry(2, 40, 4, start: 1000), Self.entry(3, 50, 5, start: 999)])
        #expect(account.take().map(\.bytesOut) == [300])
        account.show([Self.entry(4, 70, 0)])
        #expect(account.take().map(\.bytesOut) == [70], "without times, what shows up after the baseline is new")
    }

    @Test("R21: a dump that still shows what has ended meanwhile") func endDuringDump() {
        var account = Self.running()
        account.beginDump()
        account.see(Self.entry(1, 150, 15), isEnd: true, now: 2000)
        account.see(Self.entry(1, 100, 10), isEnd: false, now: 2001)
        account.finishDump(isComplete: true)
        #expect(account.take().map(\.bytesOut) == [150])
        account.show([Self.entry(1, 30, 0)])
        #expect(account.take().map(\.bytesOut) == [30], "in the next dump it is another of the same name")
    }

    @Test("an end that was not heard: another entry of the same name counts from nought") func reused() {
        var account = Self.running()
        account.show([Self.entry(1, 100, 10, start: 5000)])
        account.show([Self.entry(1, 40, 4, start: 7000)])
        account.show([Self.entry(1, 900, 90, start: 9000)])
        let record = account.take().first
        #expect(record?.bytesOut == 1040 && record?.bytesIn == 104 && record?.connections == 3)
    }

    @Test("one id, two tuples: both are counted") func sharedID() {
        var account = Self.running()
        account.show([Self.entry(1, 100, 0, port: 53), Self.entry(1, 10, 0, port: 123)])
        account.show([Self.entry(1, 100, 0, port: 53), Self.entry(1, 10, 0, port: 123)])
        #expect(
            Dictionary(uniqueKeysWithValues: account.take().map { ($0.key.port, $0.bytesOut) }) == [53: 100, 123: 10])
    }

    @Test("what two whole dumps in a row don't show has ended; one, or one that broke off, proves nothing")
    func missed() {
        var account = Self.running()
        account.show([Self.entry(1, 100, 0)])
        account.show([])
        account.show([], isComplete: false)
        account.show([Self.entry(1, 120, 0)])
        #expect(account.take().map(\.bytesOut) == [120])
        account.show([])
        account.show([])
        #expect(account.tracked == 0 && account.statistics.missedEnds == 1)
    }

    @Test("R21: an end that is heard late, behind two dumps without its entry, is no other entry's: it counts once")
    func heardLate() {
        var account = Self.running()
        account.show([Self.entry(1, 100, 0)])
        // The kernel has told of the end, and nobody has read it yet.
        for _ in 0..<3 { account.show([], hasHeardEnds: false) }
        account.see(Self.entry(1, 130, 0), isEnd: true, now: 1)
        let record = account.take().first
        #expect(record?.bytesOut == 130 && record?.connections == 1 && account.statistics.missedEnds == 0)
        #expect(account.tracked == 0)
    }

    @Test("R27: a full table follows no more, and counts the rest at its end or when there is room, once") func full() {
        var settings = ConntrackSettings()
        settings.tableLimit = 2
        var account = Self.running(settings)
        let all = (1...4).map { Self.entry(UInt32($0), 100, 0) }
        account.show(all)
        account.show(all)
        #expect(account.tracked == 2 && account.statistics.deferred == 4)
        #expect(account.take().map(\.bytesOut) == [200])
        account.see(Self.entry(4, 130, 0), isEnd: true, now: 1)
        account.see(Self.entry(1, 100, 0), isEnd: true, now: 1)
        #expect(account.take().map(\.bytesOut) == [130])
        account.show([Self.entry(2, 100, 0), Self.entry(3, 100, 0)])
        account.see(Self.entry(3, 110, 0), isEnd: true, now: 1)
        #expect(account.take().map(\.bytesOut) == [110])
    }

    @Test("R21: a baseline that did not fit counts nothing of what may be old") func partBaseline() {
        var settings = ConntrackSettings()
        settings.tableLimit = 1
        var account = ConntrackAccount(settings, countsFrom: 1000) { _ in 0 }
        account.show([Self.entry(1, 100, 0), Self.entry(2, 1_000_000, 0)])
        account.see(Self.entry(2, 1_000_500, 0), isEnd: true, now: 1)
        account.see(Self.entry(3, 80, 0, start: 2000), isEnd: true, now: 1)
        #expect(account.take().map(\.bytesOut) == [80])
    }

    @Test("only the node's own instances; TCP that is the relay's is not counted here") func excluded() {
        var settings = ConntrackSettings()
        settings.relayedMark = ConnectionMark(value: 0x50, mask: 0xF0)
        settings.relayedPorts = [15001]
        var account = Self.running(settings)
        var marked = Self.entry(1, 1, 0, proto: 6)
        var redirected = Self.entry(2, 2, 0, port: 443, proto: 6)
        marked.mark = 0x5A
        redirected.reply.source = Self.us
        redirected.reply.sourcePort = 15001
        let plain = Self.entry(3, 4, 0, port: 15001, proto: 6)
        var markedUDP = Self.entry(4, 8, 0)
        markedUDP.mark = 0x50
        let foreign = Self.entry(5, 16, 0, from: Self.them)
        account.show([marked, redirected, plain, markedUDP, foreign])
        #expect(account.take().reduce(0) { $0 + $1.bytesOut } == 12)
        settings.countsTCP = false
        account = Self.running(settings)
        account.show([plain, markedUDP])
        #expect(account.take().map(\.bytesOut) == [8])
    }

    @Test("R21: what an outsider begins is the instance's that it reaches, behind translation too; TCP is not")
    func outsider() throws {
        var account = Self.running()
        var asked = Self.entry(1, 100, 4000, from: Self.them, port: 5353)
        asked.reply.source = Self.us
        var translated = asked
        translated.id = 2
        translated.original.destination = IPAddress(v4: 0xC000_0201)
        translated.original.destinationPort = 53
        var tcp = Self.entry(3, 7, 7, from: Self.them, port: 80, proto: 6)
        tcp.reply.source = Self.us
        account.show([asked, translated, tcp])
        let record = try #require(account.take().first)
        #expect(record.key == FlowKey(instance: 4, source: Self.us, destination: Self.them, port: 5353, proto: 17))
        #expect(record.bytesOut == 8000 && record.bytesIn == 200 && record.connections == 0, "begun by nobody here")
        #expect(account.tracked == 2)
        (asked.originalBytes, asked.replyBytes) = (150, 4001)
        account.see(asked, isEnd: true, now: 4000)
        let last = account.take()
        #expect(last.map(\.bytesOut) == [1] && last.map(\.bytesIn) == [50])
        var echo = Self.entry(4, 84, 84, from: Self.them, port: 0, proto: 1)
        (echo.original.icmp, echo.reply.icmp, echo.reply.source) = (0x0800, 0, Self.us)
        account.show([translated, echo])
        #expect(account.take().map { [$0.bytesOut, $0.bytesIn, UInt64($0.key.port)] } == [[84, 84, 0]])
    }

    @Test("R21: of neighbours each is billed for what it sends and gets; an instance that speaks to itself, once")
    func neighbours() throws {
        let (one, two, also) = (IPAddress(v4: 1), IPAddress(v4: 2), IPAddress(v4: 3))
        let owners: [IPAddress: UInt32] = [one: 1, two: 2, also: 1]
        var account = ConntrackAccount(ConntrackSettings(), countsFrom: 1000) { owners[$0] }
        account.show([])
        func entry(_ id: UInt32, to place: IPAddress, _ out: UInt64, _ into: UInt64) -> ConntrackEntry {
            var entry = Self.entry(id, out, into, from: one)
            // Both by a public address of the other's.
            entry.original.destination = IPAddress(v4: 0xC000_0200 | id)
            entry.reply.source = place
            return entry
        }
        account.show([entry(1, to: two, 100, 9), entry(2, to: also, 1000, 50)])
        account.show([entry(1, to: two, 130, 10), entry(2, to: also, 1000, 55)])
        let records = account.take()
        let sums = Dictionary(grouping: records) { $0.key.instance }.mapValues { all in
            all.reduce(into: [0, 0, 0] as [UInt64]) {
                $0 = [$0[0] + $1.bytesOut, $0[1] + $1.bytesIn, $0[2] + UInt64($1.connections)]
            }
        }
        #expect(sums == [1: [1130, 65, 2], 2: [10, 130, 0]])
        let key = FlowKey(instance: 2, source: two, destination: one, port: 53, proto: 17)
        #expect(records.contains { $0.key == key })
    }

    @Test("R21: either neighbour may leave: its own growth until then is its own, and the other's goes on")
    func oneLeaves() {
        final class Owners { var all: [IPAddress: UInt32] = [:] }
        let owners = Owners()
        owners.all = [Self.us: 4, Self.them: 5]
        var account = ConntrackAccount(ConntrackSettings(), countsFrom: 1000) { owners.all[$0] }
        account.show([])
        account.show([Self.entry(1, 100, 10)])
        #expect(Set(account.take().map { [UInt64($0.key.instance), $0.bytesOut] }) == [[4, 100], [5, 10]])
        owners.all[Self.them] = nil
        account.show([Self.entry(1, 130, 11)])
        #expect(Set(account.take().map { [UInt64($0.key.instance), $0.bytesOut] }) == [[4, 30], [5, 1]])
        (owners.all[Self.us], owners.all[Self.them]) = (nil, 6)
        account.show([Self.entry(1, 140, 13)])
        #expect(Set(account.take().map { [UInt64($0.key.instance), $0.bytesOut] }) == [[4, 10], [6, 2]])
        account.show([Self.entry(1, 150, 14)])
        #expect(account.take().map { [UInt64($0.key.instance), $0.bytesOut] } == [[6, 1]])
    }

    @Test("ICMP's type and code stand for the port; entries without counters are 0 bytes, and counted as such")
    func icmp() {
        var account = Self.running()
        var echo = Self.entry(1, nil, nil, port: 0, proto: 1)
        echo.original.icmp = 0x0800
        account.show([echo])
        let record = account.take().first
        #expect(record?.key.port == 0x0800 && record?.bytesOut == 0 && record?.connections == 1)
        #expect(account.statistics.withoutCounters == 1)
    }

    @Test(
        "R21: any order of dumps and ends: what is counted never is more than was sent, and all of it at the end",
        arguments: 0..<200)
    func model(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var account = Self.running()
        var live: [UInt32: (out: UInt64, into: UInt64)] = [:]
        var sent: UInt64 = 0
        var received: UInt64 = 0
        var begun: UInt32 = 0
        var begunHere: UInt32 = 0
        var counted = (out: UInt64(0), into: UInt64(0), connections: UInt32(0))
        // An outsider begins every third.
        func made(_ id: UInt32, _ bytes: (out: UInt64, into: UInt64)) -> ConntrackEntry {
            guard id % 3 == 0 else { return Self.entry(id, bytes.out, bytes.into) }
            var entry = Self.entry(id, bytes.into, bytes.out, from: Self.them)
            entry.reply.source = Self.us
            return entry
        }
        func collect() {
            for record in account.take() {
                counted.out += record.bytesOut
                counted.into += record.bytesIn
                counted.connections += record.connections
            }
            #expect(counted.out <= sent && counted.into <= received && counted.connections <= begunHere)
        }
        func grow() {
            for id in live.keys where Bool.random(using: &random) {
                let (out, into) = (
                    UInt64.random(in: 0...900, using: &random), UInt64.random(in: 0...900, using: &random)
                )
                live[id]?.out += out
                live[id]?.into += into
                sent += out
                received += into
            }
        }
        func end(_ id: UInt32) {
            guard let last = live.removeValue(forKey: id) else { return }
            account.see(made(id, last), isEnd: true, now: 2000)
        }
        for _ in 0..<40 {
            for _ in 0..<Int.random(in: 0...5, using: &random) {
                begun += 1
                begunHere += begun % 3 == 0 ? 0 : 1
                live[begun] = (0, 0)
            }
            grow()
            // The kernel's picture of some is older than what we have heard of them since.
            account.beginDump()
            var shown = live.map { made($0.key, $0.value) }.shuffled(using: &random)
            while let next = shown.popLast() {
                if Int.random(in: 0..<4, using: &random) == 0 {
                    grow()
                    if let id = live.keys.sorted().randomElement(using: &random) { end(id) }
                }
                // A table that changes shows an entry twice.
                for _ in 0..<Int.random(in: 1...2, using: &random) { account.see(next, isEnd: false, now: 2000) }
            }
            account.finishDump(isComplete: Bool.random(using: &random))
            collect()
        }
        for id in live.keys { end(id) }
        collect()
        #expect(counted.out == sent && counted.into == received && counted.connections == begunHere)
    }
}

extension ConntrackAccount {
    fileprivate mutating func show(
        _ entries: [ConntrackEntry], now: UInt64 = 3000, isComplete: Bool = true, hasHeardEnds: Bool = true
    ) {
        beginDump()
        for entry in entries { see(entry, isEnd: false, now: now) }
        finishDump(isComplete: isComplete, hasHeardEnds: hasHeardEnds)
    }
}
