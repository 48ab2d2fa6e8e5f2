import Testing
@testable import Machine

@Suite struct PanicWatcherTests {
    private func watch(_ text: String, chunk: Int = 1) -> String? {
        var watcher = PanicWatcher()
        let bytes = Array(text.utf8)
        for start in stride(from: 0, to: bytes.count, by: chunk) {
            Array(bytes[start..<min(start + chunk, bytes.count)]).forEach { watcher.observe($0) }
        }
        return watcher.panic
    }

    @Test(arguments: [
        "[    0.512345] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n",
        "Kernel panic - not syncing: VFS: Unable to mount root fs\n",
        "<0>[   12.000001][    T1] Kernel panic - not syncing: VFS: Unable to mount root fs\n",
    ])
    func findsAPanicAtAnyChunking(line: String) {
        for chunk in [1, 7, 1000] {
            #expect(watch("booting\r\n" + line, chunk: chunk) == "Kernel panic - not syncing: VFS: Unable to mount root fs")
        }
    }

    @Test(arguments: [
        "echo Kernel panic - not syncing: no\n", "---[ end Kernel panic - not syncing: x ]---\n", "Kernel panic\n",
        "[ [ [ [\n", "<<<<\n", "[", "\n\n\n", "Kernel panic - not syncing: the line goes on",
        "x [12] Kernel panic - not syncing: no time\n", "[1.x] said: Kernel panic - not syncing: no\n",
        String(repeating: "x", count: 300) + "Kernel panic - not syncing: no\n",
    ])
    func leavesTheRestAlone(text: String) { #expect(watch(text) == nil) }

    /// A program's last words without a line's end, then the kernel's.
    @Test(arguments: ["partial", "]", "[1.2] x[", String(repeating: "long ", count: 200)])
    func findsAPanicOnALineThatWasBegun(begun: String) {
        for time in ["[   17.865503] ", "[   17.865503][    T1] ", "[    0.1][   C12] "] {
            for chunk in [1, 7, 1000] {
                #expect(
                    watch("x\n\(begun)\(time)Kernel panic - not syncing: Attempted to kill init!\r\n", chunk: chunk)
                        == "Kernel panic - not syncing: Attempted to kill init!")
            }
        }
    }

    @Test func aLongReasonIsCut() {
        let line = "Kernel panic - not syncing: " + String(repeating: "y", count: 1000)
        #expect(watch("[ 1.5] \(line)\n").map { line.hasPrefix($0) && $0.count > 200 } == true)
    }

    @Test func aLineWithoutEndCostsBoundedMemory() {
        var watcher = PanicWatcher()
        let flood = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 20)
        for _ in 0..<16 { flood.forEach { watcher.observe($0) } }
        #expect(watcher.panic == nil)
        Array("\nKernel panic - not syncing: late\n".utf8).forEach { watcher.observe($0) }
        #expect(watcher.panic == "Kernel panic - not syncing: late")
    }
}
