import Foundation
import Testing
import Windhover

/// Guests that misbehave as whole machines do, by the program its users run.
@Suite(.serialized) struct HostileGuestTests {
    let scratch = Scratch()

    static let engines: [[String]] = [
        ["--engine", "interpreter"], ["--engine", "kvm", "--irqchip", "kernel"], ["--engine", "kvm", "--irqchip", "split"],
    ]

    private func needs(_ engine: [String]) throws {
        if engine[1] == "kvm", access("/dev/kvm", R_OK | W_OK) != 0 { try Test.cancel("this host has no usable /dev/kvm") }
    }

    /// Prints `text` on COM1, then resets the machine by port 0xCF9. Real-mode code for any address.
    static func printsAndResets(_ text: String) -> [UInt8] {
        [
            0xFA, 0xE8, 0x00, 0x00,  // cli; call the next
            0x5E, 0x83, 0xC6, 0x17,  // pop si; add si, the text's distance
            0xBA, 0xF8, 0x03,  // mov dx, 0x3F8
            0x2E, 0xAC, 0x84, 0xC0, 0x74, 0x03, 0xEE, 0xEB, 0xF7,  // each byte up to 0: cs lodsb; out dx, al
            0xB0, 0x06, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4,  // mov al, 6; mov dx, 0xCF9; out dx, al; hlt
        ] + Array(text.utf8) + [0]
    }

    /// Of each of a guest's lives nothing stays: neither descriptors nor address space.
    @Test(arguments: engines) func resetsForEver(engine: [String]) throws {
        try needs(engine)
        let image = scratch.file("reset.bin", Self.printsAndResets(""))
        // Room for few lives at once.
        let result = try HoverProcess.run(
            ["run", image, "--memory", "16M", "--timeout", "6s", "--stats", scratch.path + "/s"] + engine,
            through: ["sh", "-c", "ulimit -n 60; ulimit -v 4000000; exec \"$@\"", "sh"])
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        let numbers = try String(contentsOfFile: scratch.path + "/s", encoding: .utf8)
        let boots = numbers.split(separator: "\n").first { $0.contains("\"boots\"") }?.split(whereSeparator: { !$0.isNumber })
        #expect(Int(boots?.first ?? "") ?? 0 > 50, "\(numbers)")
    }

    /// A panic is one wherever its console goes, also behind a program's unfinished line.
    @Test(arguments: ["stdio", "none"]) func panicIsSeen(console: String) throws {
        let image = scratch.file("panic.bin", Self.printsAndResets("last words[   17.865503] Kernel panic - not syncing: no init\n"))
        let result = try HoverProcess.run(["run", image, "--memory", "16M", "--console", console, "--timeout", "20s"])
        #expect(result.status == ExitStatus.guestPanicked.rawValue, "\(result.errors)")
        #expect(result.errors.contains("Kernel panic - not syncing: no init"))
    }

    /// What a panic says is a guest's word: a terminal is not to obey it.
    @Test func aPanicsLineIsFitForATerminal() throws {
        let image = scratch.file("panic.bin", Self.printsAndResets("Kernel panic - not syncing: \u{1B}]0;x\u{7}\u{9B}2J\u{202E}y\n"))
        let result = try HoverProcess.run(["run", image, "--memory", "16M", "--console", "none", "--timeout", "20s"])
        #expect(result.errors.contains("hover: the guest's kernel panicked: Kernel panic - not syncing: 2Jy\n"), "\(result.errors)")
    }
}
