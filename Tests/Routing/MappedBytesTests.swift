import Pipeline
import Testing

@testable import PipelineRouting

/// A table in memory, as if it lay in a file.
@Suite("a table that is served where it lies: its bytes")
struct MappedBytesTests {
    private final class Memory {
        let bytes: UnsafeMutableRawBufferPointer
        init(_ content: [UInt8]) {
            bytes = .allocate(byteCount: content.count, alignment: 64)
            bytes.copyBytes(from: content)
        }
        deinit { bytes.deallocate() }

        func table(_ info: [UInt8]) -> MappedTable? {
            MappedTable(UnsafeRawBufferPointer(bytes), info: info, owner: self)
        }
    }

    private func objects(_ count: Int) -> ObjectStore {
        let store = ObjectStore()
        for env in 0..<4 {
            _ = store.set(.env, "env_\(env)", ["{\"env_id\":\"env_\(env)\",\"app_id\":\"app\",\"org_id\":\"org\"}"])
        }
        for number in 0..<count {
            _ = store.set(
                .route, "r\(number)",
                [
                    "{\"route_id\":\"r\(number)\",\"env_id\":\"env_\(number % 4)\",\"hostname\":\"n\(number).org\","
                        + "\"listen_port\":\(number % 7 == 0 ? 8443 : 443),\"protocol_hint\":\"tls_passthrough\","
                        + "\"backend_process_type\":\"\(number % 3 == 0 ? "api" : "web")\",\"backend_port\":80}"
                ])
        }
        return store
    }

    private struct Nothing: AppliedObjects {
        func visit(_ body: (StateKind, Bytes, AppliedObject) -> Void) {}
    }

    private func image(_ objects: ObjectStore) throws -> (content: [UInt8], info: [UInt8], RoutingState) {
        let state = RoutingState(seed: testSeed)
        _ = state.restore(objects, Nothing())
        var content: [UInt8] = []
        let info = try #require(state.image(least: 1)?.write { content += $0 })
        return (content, info, state)
    }

    private func start(_ table: MappedTable, _ objects: ObjectStore, mostNumbers: UInt32 = .max) -> RoutingState {
        let state = RoutingState(seed: testSeed)
        state.store.mostNumbers = mostNumbers
        let kept = KeptTable(table, changed: [], desired: objects.texts[.route]?.count ?? 0)
        _ = state.restore(objects, Nothing(), from: kept)
        return state
    }

    @Test("what is written is served, of few routes and of many", arguments: [1, 2, 40, 5000])
    func whole(count: Int) throws {
        let objects = objects(count)
        let (content, info, first) = try image(objects)
        let table = try #require(Memory(content).table(info))
        var memory: RouteStore?
        do {
            let state = start(table, objects)
            memory = state.memory
            #expect(state.mappedRoutes == count && state.snapshot.routeCount == count)
            #expect(state.snapshot.listing() == first.snapshot.listing())
            for number in 0..<count {
                let port: UInt16 = number % 7 == 0 ? 8443 : 443
                #expect(state.snapshot.named("n\(number).org", port)?.pointee.id.string == "r\(number)")
            }
            // Written again from where it lies, it is the same.
            var again: [UInt8] = []
            let other = try #require(state.image(least: 1)?.write { again += $0 })
            #expect(other == info && again.count == content.count)
            // All of them go, and others come in their numbers.
            for number in 0..<count { _ = objects.set(.route, "r\(number)", []) }
            var touched = TouchedObjects()
            for number in 0..<count { touched.insert(.route, "r\(number)".utf8) }
            _ = state.apply(touched, of: objects)
            #expect(state.snapshot.routeCount == 0)
            state.freeUnpinned()
            let fresh = self.objects(count / 2 + 1)
            _ = state.applyAll(of: fresh)
            #expect(state.snapshot.routeCount == count / 2 + 1)
        }
        #expect(memory?.liveBlocks == 0)
    }

    @Test("without memory for its routes all is read")
    func noMemory() throws {
        let objects = objects(5000)
        let (content, info, first) = try image(objects)
        let table = try #require(Memory(content).table(info))
        for most in [0, 1, 4095, 4096, 4999] as [UInt32] {
            let state = start(table, objects, mostNumbers: most)
            #expect(state.mappedRoutes == 0 && state.snapshot.listing() == first.snapshot.listing())
        }
        #expect(start(table, objects, mostNumbers: 5000).mappedRoutes == 5000)
    }

    @Test("objects that it does not go with: all is read")
    func others() throws {
        let objects = objects(40)
        let (content, info, _) = try image(objects)
        let table = try #require(Memory(content).table(info))
        _ = objects.set(.route, "r41", objects.texts[.route]?["r4"].map { [String(decoding: $0, as: UTF8.self)] } ?? [])
        #expect(start(table, objects).mappedRoutes == 0, "one that it has not")
        _ = objects.set(.route, "r41", [])
        _ = objects.set(.route, "r7", [])
        #expect(start(table, objects).mappedRoutes == 0, "one that is gone")
        _ = objects.set(.route, "r7", objects.texts[.route]?["r4"].map { [String(decoding: $0, as: UTF8.self)] } ?? [])
        #expect(start(table, objects).mappedRoutes == 40, "what has changed is told by its keeper")
        _ = objects.set(.env, "env_1", [])
        #expect(start(table, objects).mappedRoutes == 0, "an env that is not there")
    }

    @Test("other bytes, whatever they are, lead nowhere", arguments: 0..<4)
    func bytes(part: Int) throws {
        let objects = objects(9)
        let (content, info, _) = try image(objects)
        var used = 0
        for place in stride(from: part, to: content.count, by: 4) {
            for bit in [0, 3, 7] as [UInt8] {
                var bytes = content
                bytes[place] ^= 1 << bit
                guard let table = Memory(bytes).table(info) else { continue }
                used += 1
                let state = start(table, objects)
                for number in 0..<9 { _ = state.snapshot.named("n\(number).org", 443)?.backends.buffer.count }
                _ = state.snapshot.listing()
                state.visitGroups { number in
                    _ = state.servedGroup(number)?.someRoutes(10)
                    state.visitRoutes(of: number) { _ = $0.pointee.id.string }
                }
                var touched = TouchedObjects()
                for number in 0..<9 { touched.insert(.route, "r\(number)".utf8) }
                _ = state.apply(touched, of: ObjectStore())
            }
        }
        #expect(used > 0)
        for place in 0..<info.count {
            var other = info
            other[place] ^= 1 << UInt8(part)
            // Within what fills up its last part, or nothing.
            if let table = Memory(content).table(other) { _ = start(table, objects).snapshot.listing() }
        }
    }
}
