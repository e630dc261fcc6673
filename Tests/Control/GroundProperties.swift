import PipelineNode

/// What must hold of a node's answer to `plan --admin`, whatever it is. For the tests beside it and for Fuzz/run.
enum GroundProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        do throws(PlanGround.Fault) {
            _ = try PlanGround(Array(bytes))
            return nil
        } catch {
            return error.text.isEmpty ? "a fault without a word" : nil
        }
    }
}
