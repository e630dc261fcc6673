import Foundation
import TestSupport

/// What a node has said about a backend on standard error.
struct BackendEvent: Sendable {
    let text: String
    /// How many probes it goes by; -1: it doesn't say.
    let probes: Int
    /// Wall clock.
    let time: Date

    init(_ text: String) throws {
        let json = try (JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]).unwrap("object")
        let format = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        self.text = text
        time = try format.parse((json["time"] as? String).unwrap("time"))
        probes = json["probes"] as? Int ?? -1
    }
}

extension Node {
    /// The `number`-th line (from 1) with this event about the backend at `place`, as soon as there is one.
    func event(_ event: String, of place: Place, _ number: Int = 1) throws -> BackendEvent {
        let line = try child.waitForError("\(event) of \(place)") { lines in
            let found = lines.filter { $0.isEvent(event) && $0.text.contains("\"backend\":\"\(place)\"") }
            return found.count >= number ? found[number - 1] : nil
        }
        return try BackendEvent(line.text)
    }

    /// The first line with this event about the route.
    func event(_ event: String, route: String) throws -> String {
        try child.waitForError("\(event) of \(route)") { lines in
            lines.first { $0.isEvent(event) && $0.text.contains("\"route\":\"\(route)\"") }
        }.text
    }
}

enum Admin {
    /// What the admin socket answers to a command, as JSON.
    static func json(_ words: [String], _ socket: String) throws -> [String: Any] {
        let answer = try Binary.run(words + ["--admin", socket, "--json"])
        let object = try JSONSerialization.jsonObject(with: Data(answer.out.utf8))
        return try (object as? [String: Any]).unwrap("object: \(answer.out)\(answer.error)")
    }
}
