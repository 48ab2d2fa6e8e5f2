import Glibc
import Testing

@testable import Windhover

@Suite struct ShellStatusTests {
    /// As the host's own shell has them.
    @Test(arguments: ["exit 0", "exit 7", "exit 255", "exit 137", "kill -9 $$", "kill -1 $$", "kill -64 $$"])
    func childrenEndAsShellsHaveIt(script: String) throws {
        let ended = try HostCommand(["sh", "-c", script]).run()
        let told = try HostCommand(["sh", "-c", "sh -c '\(script)'; echo $?"]).run()
        #expect("\(ended.status)\n" == told.text)
    }

    @Test func aSignalIsFoundInItsStatus() {
        for signal: Int32 in 1...64 { #expect(ShellStatus.signal(of: ShellStatus.signal(signal)) == signal) }
        for status: Int32 in [.min, -1, 0, 1, 127, 128, 193, 255, .max] { #expect(ShellStatus.signal(of: status) == nil) }
        #expect(ShellStatus.signal(SIGKILL) == 137)
    }
}
