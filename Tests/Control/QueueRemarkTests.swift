import PipelineNode
import Testing

@Suite("A queue holds slots") struct QueueRemarkTests {
    private func remarks(_ connections: Int, _ workers: String, _ limit: Int, group: Bool = false) -> [String] {
        var text = Fixture.pipelines.replacing(
            "workers  1", with: "workers  \(workers)\n    connections  \(connections) per worker")
        let lines = "max_connections 1\n    queue \(limit) for 5s"
        if group {
            text += "backends web {\n    backend [fd00::10]:1\n    \(lines)\n}\n"
            text += Fixture.route(nil, id: "rt_db", port: 5432).replacing(
                "backend  [fd00::10]:8443", with: "backends web")
        } else {
            text += Fixture.route(nil, id: "rt_db", port: 5432, more: lines)
        }
        let loaded = Fixture.load(text)
        #expect(loaded.node != nil, "\(loaded.summary)")
        return loaded.diagnostics.filter { $0.severity == .warning }.map(\.message)
    }

    @Test("one that is larger than the connections of all workers is a warning; as large as they are, none")
    func long() {
        for group in [false, true] {
            #expect(remarks(100, "2", 200, group: group) == [])
            #expect(
                remarks(100, "2", 201, group: group) == ["201 connections may wait, and the node has no more than 200"])
        }
        #expect(remarks(1_000, "auto", 1_000) == [])
    }
}
