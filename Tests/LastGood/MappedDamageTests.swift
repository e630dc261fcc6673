import Glibc
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineState

/// Whatever is wrong with a table, a start reads all, and says why (ADR 0116).
@Suite("R4, R23: a table that is not fit is left aside")
struct MappedDamageTests {
    private static func route(_ number: Int) -> String {
        "{\"route_id\":\"r\(number)\",\"env_id\":\"env_\(number % 2)\",\"hostname\":\"n\(number).example.com\","
            + "\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\",\"backend_port\":80}"
    }

    private static func world(routes: Int) -> World {
        var world = World()
        for env in 0..<2 {
            world.set(.env, "env_\(env)", "{\"env_id\":\"env_\(env)\",\"app_id\":\"app\",\"org_id\":\"org\"}")
            world.set(
                .instance, "i\(env)",
                "{\"instance_id\":\"i\(env)\",\"env_id\":\"env_\(env)\",\"process_type\":\"web\",\"status\":\"ready\","
                    + "\"overlay_ipv6\":\"fd00::\(env + 1)\"}")
        }
        for number in 0..<routes { world.set(.route, "r\(number)", route(number)) }
        world.revision = 1
        return world
    }

    /// A directory with a table of some routes.
    private struct Site {
        let folder = Folder()
        let served: [String]
        let table: String
        let bytes: [UInt8]
        let secret: [UInt8]
        var number: UInt64 { UInt64(table.dropFirst("table.".count)) ?? 0 }

        init(routes: Int, prepare: @escaping (RoutingState) -> Void = { _ in }) throws {
            let keeper = try Keeper(folder.state, tables: 1, prepare: prepare)
            try keeper.take(MappedDamageTests.world(routes: routes).document)
            try keeper.writeTable(withCompaction: true)
            served = keeper.routing.snapshot.listing().map { "\($0)" }
            secret = try (keeper.state?.store.secret).unwrap("secret")
            table = try MappedDamageTests.tables(folder.state).first.unwrap("table")
            bytes = try MappedDamageTests.read("\(folder.state)/\(table)")
        }

        /// A start with other bytes in the table's place.
        func start(_ bytes: [UInt8], prepare: (RoutingState) -> Void = { _ in }) throws -> Start {
            for name in MappedDamageTests.tables(folder.state) { unlink("\(folder.state)/\(name)") }
            try MappedDamageTests.write(bytes, "\(folder.state)/\(table)")
            let kept = try LastGood.open(folder.state).state
            kept.useTables(least: 1)
            let routing = RoutingState(seed: kept.seed)
            prepare(routing)
            _ = kept.restore(routing)
            return Start(
                served: routing.snapshot.listing().map { "\($0)" }, mapped: routing.mappedRoutes,
                notices: kept.takeNotices())
        }
    }

    private struct Start {
        let served: [String]
        let mapped: Int
        let notices: [StateNotice]
    }

    private static func tables(_ directory: String) -> [String] {
        var names: [String] = []
        _ = LinuxDisk().names(in: directory, &names)
        return names.filter { $0.hasPrefix("table.") }.sorted()
    }

    private static func read(_ path: String) throws -> [UInt8] {
        let file = open(path, O_RDONLY)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = Glibc.read(file, &bytes, bytes.count)
        return Array(bytes.prefix(max(0, count)))
    }

    private static func write(_ bytes: [UInt8], _ path: String) throws {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        defer { close(file) }
        guard Glibc.write(file, bytes, bytes.count) == bytes.count else { throw Failure("can't write \(path)") }
    }

    @Test("it is used as it was written")
    func whole() throws {
        let site = try Site(routes: 6)
        let start = try site.start(site.bytes)
        #expect(start.served == site.served && start.mapped == 6 && start.notices.isEmpty)
    }

    /// Nil: a store would not use it.
    private func opened(_ bytes: [UInt8], _ site: Site) throws -> DerivedFile? {
        let path = "\(site.folder.path)/table"
        defer { unlink(path) }
        try MappedDamageTests.write(bytes, path)
        return try? DerivedFile.open(path, number: site.number, secret: site.secret, LinuxDisk())
    }

    /// A start with these bytes in the table's place reads all.
    private func expectRead(_ bytes: [UInt8], _ site: Site, _ what: String) throws {
        let start = try site.start(bytes)
        let isRead = start.served == site.served && start.mapped == 0 && start.notices.count == 1
        #expect(isRead, "\(what): \(start.mapped) mapped, \(start.notices)")
    }

    @Test("a byte of it that is another one, each in turn; and the start, for some of them")
    func flips() throws {
        let site = try Site(routes: 6)
        #expect(try opened(site.bytes, site) != nil)
        for place in site.bytes.indices {
            var bytes = site.bytes
            bytes[place] ^= UInt8(1) << UInt8(place % 8)
            // Where it is another store's, that is said elsewhere.
            let file = try opened(bytes, site)
            if let file { #expect(file.header.store != LogHeader.store(secret: site.secret), "byte \(place)") }
            if place % 13 == 0 || file != nil { try expectRead(bytes, site, "byte \(place)") }
        }
    }

    @Test("cut at each byte, and longer; and the start, for some of them")
    func cuts() throws {
        let site = try Site(routes: 6)
        for length in site.bytes.indices {
            let bytes = Array(site.bytes[..<length])
            #expect(try opened(bytes, site) == nil, "\(length) bytes")
            if length % 17 == 0 { try expectRead(bytes, site, "\(length) bytes") }
        }
        for more in [1, 4, 8, 65536] {
            try expectRead(site.bytes + [UInt8](repeating: 0, count: more), site, "\(more) bytes more")
        }
    }

    @Test("damage is set aside by name, and what is merely of others stays")
    func named() throws {
        let site = try Site(routes: 6)
        var bytes = site.bytes
        bytes[4200] ^= 1
        let start = try site.start(bytes)
        #expect(start.notices.map(\.event) == ["state_table_damaged"] && start.notices[0].text.contains(site.table))
        #expect(!start.notices[0].isLoss)
        let names = MappedDamageTests.tables(site.folder.state)
        #expect(names.count == 1 && names[0].hasPrefix("\(site.table).damaged-"))
    }

    /// The header with other fields, and right checksums.
    private func altered(_ bytes: [UInt8], _ change: (inout DerivedHeader) -> Void) throws -> [UInt8] {
        var header = try bytes.withUnsafeBytes {
            try DerivedHeader($0.baseAddress.unwrap(), fileBytes: bytes.count)
        }
        change(&header)
        return header.encoded() + bytes[4096...]
    }

    @Test("of another format, another moment, another store, other rules")
    func others() throws {
        let site = try Site(routes: 6)
        let other = try Site(routes: 6)
        let altered = [
            try altered(site.bytes) { $0.version += 1 }, try altered(site.bytes) { $0.version = 0 },
            try altered(site.bytes) { $0.sequence += 1 }, try altered(site.bytes) { $0.sequence -= 1 },
            try altered(site.bytes) { $0.nonce[3] ^= 1 }, try altered(site.bytes) { $0.key[15] ^= 1 },
            try altered(site.bytes) { $0.store ^= 1 }, other.bytes,
        ]
        for (index, bytes) in altered.enumerated() {
            let start = try site.start(bytes)
            #expect(start.served == site.served && start.mapped == 0, "\(index)")
            #expect(start.notices.map(\.event) == ["state_table_unused"], "\(index): \(start.notices)")
            #expect(MappedDamageTests.tables(site.folder.state) == [site.table], "it stays")
        }
        let listener = ListenerFacts(
            address: .unspecified, ports: 443...443, hint: .tlsPassthrough, injectsProxy: false, pipeline: "tls")
        for prepare: (RoutingState) -> Void in [
            { $0.listeners = [listener] }, { $0.policy = PortPolicy(denied: [9...9]) }, { $0.hashesByDefault = true },
        ] {
            let start = try site.start(site.bytes, prepare: prepare)
            #expect(start.mapped == 0 && start.notices.map(\.event) == ["state_table_unused"])
        }
    }

    @Test("a newer file is never set aside, used or removed")
    func newer() throws {
        let site = try Site(routes: 6)
        var bytes = site.bytes
        bytes[8] = 2
        let sum = bytes.withUnsafeBytes { checksum(UnsafeRawBufferPointer(rebasing: $0[..<4092])) }
        withUnsafeBytes(of: sum.littleEndian) { for (index, byte) in $0.enumerated() { bytes[4092 + index] = byte } }
        let start = try site.start(bytes)
        #expect(start.served == site.served && start.mapped == 0)
        #expect(start.notices.map(\.event) == ["state_table_unused"])
        let keeper = try Keeper(site.folder.state, tables: 1)
        try keeper.writeTable(withCompaction: true)
        #expect(MappedDamageTests.tables(site.folder.state).count == 2)
        #expect(try MappedDamageTests.read("\(site.folder.state)/\(site.table)") == bytes)
    }

    @Test("a file that others could have written, or that is none")
    func standing() throws {
        let site = try Site(routes: 6)
        let path = "\(site.folder.state)/\(site.table)"
        chmod(path, 0o644)
        let keeper = try Keeper(site.folder.state, tables: 1)
        #expect(keeper.routing.mappedRoutes == 6)
        #expect(keeper.state?.takeNotices().map(\.event) == ["state_mode"])
        unlink(path)
        symlink("/etc/passwd", path)
        try keeper.restart()
        #expect(keeper.routing.mappedRoutes == 0)
        #expect(keeper.state?.takeNotices().map(\.event) == ["state_table_damaged"])
    }
}
