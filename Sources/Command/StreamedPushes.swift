import ArgumentParser
import CLinux
import Glibc
import Pipeline
import PipelineAdmin
import PipelineHost
import PipelineNode
import PipelineThreads

/// `apply --stream`: each JSON object of a file or of standard input, as it comes, and each answer as that comes.
struct StreamedPushes {
    let file: String
    let isOlder: Bool
    let options: AdminOptions

    func run() throws {
        let input = file == "-" ? 0 : open(file, O_RDONLY | O_CLOEXEC)
        guard input >= 0 else {
            Output.error("error: \(file): can't be opened: \(kernelError(errno)); check the path")
            throw ExitCode.wrongInput
        }
        defer { if input != 0 { close(input) } }
        let isJSON = options.json
        var reader = ObjectReader(input)
        do {
            let pushes = try AdminConnection.push(
                at: options.admin, isOlder: isOlder, next: { try reader.next() },
                each: { Output.write(isJSON ? $0.bytes : $0.line) })
            if pushes.exit != 0 { throw ExitCode(pushes.exit) }
        } catch let error as AdminConnection.Unreachable {
            Output.error("error: \(error)")
            throw ExitCode.unreachable
        } catch let error as ChangeSplitter.Fault {
            let name = file == "-" ? "standard input" : file
            Output.error("error: \(name): \(error.problem); what came before it was pushed")
            throw ExitCode.wrongInput
        }
    }
}

/// Reads objects as they come.
private struct ObjectReader {
    private let input: Int32
    private var splitter = ChangeSplitter(limit: StateUpload.longest)
    private var ready: [[UInt8]] = []
    private var isOver = false

    init(_ input: Int32) { self.input = input }

    mutating func next() throws -> [UInt8]? {
        var room = [UInt8](repeating: 0, count: ready.isEmpty ? 65536 : 0)
        while ready.isEmpty, !isOver {
            let count = read(input, &room, room.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                isOver = true
                if count < 0 { throw ChangeSplitter.Fault(problem: "it can't be read: \(kernelError(errno))") }
                if splitter.isWithinObject { throw ChangeSplitter.Fault(problem: "it ends within an object") }
                break
            }
            var found: [[UInt8]] = []
            do { try splitter.take(room[..<count]) { found.append($0) } } catch {
                // Those before it count.
                (ready, isOver) = (found.reversed(), true)
                fault = error
            }
            if fault == nil { ready = found.reversed() }
        }
        if let object = ready.popLast() { return object }
        if let fault { throw fault }
        return nil
    }
    private var fault: (any Error)?
}
