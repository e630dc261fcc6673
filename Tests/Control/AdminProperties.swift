import PipelineAdmin

/// What must hold of a request on the admin socket, whatever a client sends. For the tests beside it and for Fuzz/run.
enum AdminProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        do throws(AdminRequest.Fault) {
            let request = try AdminRequest(Array(bytes))
            return again(request)
        } catch {
            return error.problem.isEmpty || error.remedy.isEmpty ? "a fault without a word: \(error)" : nil
        }
    }

    /// As the command would send it: one line, and the same request.
    private static func again(_ request: AdminRequest) -> String? {
        let line = request.bytes
        guard line.last == 0x0A, line.dropLast().allSatisfy({ $0 >= 0x20 }) else { return "no line: \(line)" }
        do throws(AdminRequest.Fault) {
            let read = try AdminRequest(Array(line.dropLast()))
            return read == request ? nil : "\(request), read again: \(read)"
        } catch {
            return "\(request), read again: \(error)"
        }
    }
}
