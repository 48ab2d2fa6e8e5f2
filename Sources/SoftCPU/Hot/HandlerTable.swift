// Written by handlers.py. What the handlers do is in Bodies.swift.

/// Operands' places: register and register, register and immediate, register and memory, memory and register, memory and
/// immediate; with x for m, memory with an index.
enum HotForm: UInt8 { case rr, ri, rm, mr, mi, rx, xr, xi }

enum HotALU: UInt8 { case add, or, adc, sbb, and, sub, xor }

extension Handlers {
    static func alu(_ op: HotALU, _ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch op {
        case .add: add(form, size, live: live)
        case .or: or(form, size, live: live)
        case .adc: adc(form, size, live: live)
        case .sbb: sbb(form, size, live: live)
        case .and: and(form, size, live: live)
        case .sub: sub(form, size, live: live)
        case .xor: xor(form, size, live: live)
        }
    }

    private static func add(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size, live) {
        case (.rr, 1, true): { aluRR(HotAdd.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 1, false): { aluRR(HotAdd.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.rr, 4, true): { aluRR(HotAdd.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 4, false): { aluRR(HotAdd.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.rr, 8, true): { aluRR(HotAdd.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rr, 8, false): { aluRR(HotAdd.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.ri, 1, true): { aluRI(HotAdd.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 1, false): { aluRI(HotAdd.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.ri, 4, true): { aluRI(HotAdd.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 4, false): { aluRI(HotAdd.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.ri, 8, true): { aluRI(HotAdd.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 8, false): { aluRI(HotAdd.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.rm, 1, true): { aluRM(HotAdd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 1, false): { aluRM(HotAdd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 4, true): { aluRM(HotAdd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4, false): { aluRM(HotAdd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 8, true): { aluRM(HotAdd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8, false): { aluRM(HotAdd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 1, true): { aluMR(HotAdd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1, false): { aluMR(HotAdd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 4, true): { aluMR(HotAdd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4, false): { aluMR(HotAdd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 8, true): { aluMR(HotAdd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8, false): { aluMR(HotAdd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 1, true): { aluMI(HotAdd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1, false): { aluMI(HotAdd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 4, true): { aluMI(HotAdd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4, false): { aluMI(HotAdd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 8, true): { aluMI(HotAdd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8, false): { aluMI(HotAdd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rx, 1, true): { aluRM(HotAdd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 1, false): { aluRM(HotAdd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 4, true): { aluRM(HotAdd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4, false): { aluRM(HotAdd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 8, true): { aluRM(HotAdd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8, false): { aluRM(HotAdd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 1, true): { aluMR(HotAdd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1, false): { aluMR(HotAdd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 4, true): { aluMR(HotAdd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4, false): { aluMR(HotAdd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 8, true): { aluMR(HotAdd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8, false): { aluMR(HotAdd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 1, true): { aluMI(HotAdd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1, false): { aluMI(HotAdd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 4, true): { aluMI(HotAdd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4, false): { aluMI(HotAdd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 8, true): { aluMI(HotAdd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8, false): { aluMI(HotAdd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func or(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size, live) {
        case (.rr, 1, true): { aluRR(HotOr.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 1, false): { aluRR(HotOr.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.rr, 4, true): { aluRR(HotOr.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 4, false): { aluRR(HotOr.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.rr, 8, true): { aluRR(HotOr.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rr, 8, false): { aluRR(HotOr.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.ri, 1, true): { aluRI(HotOr.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 1, false): { aluRI(HotOr.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.ri, 4, true): { aluRI(HotOr.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 4, false): { aluRI(HotOr.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.ri, 8, true): { aluRI(HotOr.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 8, false): { aluRI(HotOr.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.rm, 1, true): { aluRM(HotOr.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 1, false): { aluRM(HotOr.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 4, true): { aluRM(HotOr.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4, false): { aluRM(HotOr.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 8, true): { aluRM(HotOr.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8, false): { aluRM(HotOr.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 1, true): { aluMR(HotOr.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1, false): { aluMR(HotOr.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 4, true): { aluMR(HotOr.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4, false): { aluMR(HotOr.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 8, true): { aluMR(HotOr.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8, false): { aluMR(HotOr.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 1, true): { aluMI(HotOr.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1, false): { aluMI(HotOr.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 4, true): { aluMI(HotOr.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4, false): { aluMI(HotOr.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 8, true): { aluMI(HotOr.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8, false): { aluMI(HotOr.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rx, 1, true): { aluRM(HotOr.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 1, false): { aluRM(HotOr.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 4, true): { aluRM(HotOr.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4, false): { aluRM(HotOr.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 8, true): { aluRM(HotOr.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8, false): { aluRM(HotOr.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 1, true): { aluMR(HotOr.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1, false): { aluMR(HotOr.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 4, true): { aluMR(HotOr.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4, false): { aluMR(HotOr.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 8, true): { aluMR(HotOr.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8, false): { aluMR(HotOr.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 1, true): { aluMI(HotOr.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1, false): { aluMI(HotOr.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 4, true): { aluMI(HotOr.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4, false): { aluMI(HotOr.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 8, true): { aluMI(HotOr.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8, false): { aluMI(HotOr.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func adc(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size) {
        case (.rr, 1): { aluRR(HotAdc.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 4): { aluRR(HotAdc.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 8): { aluRR(HotAdc.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 1): { aluRI(HotAdc.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 4): { aluRI(HotAdc.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 8): { aluRI(HotAdc.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rm, 1): { aluRM(HotAdc.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4): { aluRM(HotAdc.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8): { aluRM(HotAdc.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1): { aluMR(HotAdc.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4): { aluMR(HotAdc.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8): { aluMR(HotAdc.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1): { aluMI(HotAdc.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4): { aluMI(HotAdc.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8): { aluMI(HotAdc.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rx, 1): { aluRM(HotAdc.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4): { aluRM(HotAdc.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8): { aluRM(HotAdc.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1): { aluMR(HotAdc.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4): { aluMR(HotAdc.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8): { aluMR(HotAdc.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1): { aluMI(HotAdc.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4): { aluMI(HotAdc.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8): { aluMI(HotAdc.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func sbb(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size) {
        case (.rr, 1): { aluRR(HotSbb.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 4): { aluRR(HotSbb.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 8): { aluRR(HotSbb.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 1): { aluRI(HotSbb.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 4): { aluRI(HotSbb.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 8): { aluRI(HotSbb.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rm, 1): { aluRM(HotSbb.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4): { aluRM(HotSbb.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8): { aluRM(HotSbb.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1): { aluMR(HotSbb.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4): { aluMR(HotSbb.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8): { aluMR(HotSbb.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1): { aluMI(HotSbb.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4): { aluMI(HotSbb.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8): { aluMI(HotSbb.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rx, 1): { aluRM(HotSbb.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4): { aluRM(HotSbb.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8): { aluRM(HotSbb.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1): { aluMR(HotSbb.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4): { aluMR(HotSbb.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8): { aluMR(HotSbb.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1): { aluMI(HotSbb.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4): { aluMI(HotSbb.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8): { aluMI(HotSbb.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func and(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size, live) {
        case (.rr, 1, true): { aluRR(HotAnd.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 1, false): { aluRR(HotAnd.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.rr, 4, true): { aluRR(HotAnd.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 4, false): { aluRR(HotAnd.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.rr, 8, true): { aluRR(HotAnd.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rr, 8, false): { aluRR(HotAnd.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.ri, 1, true): { aluRI(HotAnd.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 1, false): { aluRI(HotAnd.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.ri, 4, true): { aluRI(HotAnd.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 4, false): { aluRI(HotAnd.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.ri, 8, true): { aluRI(HotAnd.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 8, false): { aluRI(HotAnd.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.rm, 1, true): { aluRM(HotAnd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 1, false): { aluRM(HotAnd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 4, true): { aluRM(HotAnd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4, false): { aluRM(HotAnd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 8, true): { aluRM(HotAnd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8, false): { aluRM(HotAnd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 1, true): { aluMR(HotAnd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1, false): { aluMR(HotAnd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 4, true): { aluMR(HotAnd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4, false): { aluMR(HotAnd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 8, true): { aluMR(HotAnd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8, false): { aluMR(HotAnd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 1, true): { aluMI(HotAnd.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1, false): { aluMI(HotAnd.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 4, true): { aluMI(HotAnd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4, false): { aluMI(HotAnd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 8, true): { aluMI(HotAnd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8, false): { aluMI(HotAnd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rx, 1, true): { aluRM(HotAnd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 1, false): { aluRM(HotAnd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 4, true): { aluRM(HotAnd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4, false): { aluRM(HotAnd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 8, true): { aluRM(HotAnd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8, false): { aluRM(HotAnd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 1, true): { aluMR(HotAnd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1, false): { aluMR(HotAnd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 4, true): { aluMR(HotAnd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4, false): { aluMR(HotAnd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 8, true): { aluMR(HotAnd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8, false): { aluMR(HotAnd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 1, true): { aluMI(HotAnd.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1, false): { aluMI(HotAnd.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 4, true): { aluMI(HotAnd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4, false): { aluMI(HotAnd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 8, true): { aluMI(HotAnd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8, false): { aluMI(HotAnd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func sub(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size, live) {
        case (.rr, 1, true): { aluRR(HotSub.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 1, false): { aluRR(HotSub.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.rr, 4, true): { aluRR(HotSub.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 4, false): { aluRR(HotSub.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.rr, 8, true): { aluRR(HotSub.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rr, 8, false): { aluRR(HotSub.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.ri, 1, true): { aluRI(HotSub.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 1, false): { aluRI(HotSub.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.ri, 4, true): { aluRI(HotSub.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 4, false): { aluRI(HotSub.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.ri, 8, true): { aluRI(HotSub.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 8, false): { aluRI(HotSub.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.rm, 1, true): { aluRM(HotSub.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 1, false): { aluRM(HotSub.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 4, true): { aluRM(HotSub.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4, false): { aluRM(HotSub.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 8, true): { aluRM(HotSub.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8, false): { aluRM(HotSub.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 1, true): { aluMR(HotSub.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1, false): { aluMR(HotSub.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 4, true): { aluMR(HotSub.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4, false): { aluMR(HotSub.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 8, true): { aluMR(HotSub.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8, false): { aluMR(HotSub.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 1, true): { aluMI(HotSub.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1, false): { aluMI(HotSub.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 4, true): { aluMI(HotSub.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4, false): { aluMI(HotSub.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 8, true): { aluMI(HotSub.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8, false): { aluMI(HotSub.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rx, 1, true): { aluRM(HotSub.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 1, false): { aluRM(HotSub.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 4, true): { aluRM(HotSub.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4, false): { aluRM(HotSub.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 8, true): { aluRM(HotSub.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8, false): { aluRM(HotSub.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 1, true): { aluMR(HotSub.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1, false): { aluMR(HotSub.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 4, true): { aluMR(HotSub.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4, false): { aluMR(HotSub.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 8, true): { aluMR(HotSub.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8, false): { aluMR(HotSub.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 1, true): { aluMI(HotSub.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1, false): { aluMI(HotSub.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 4, true): { aluMI(HotSub.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4, false): { aluMI(HotSub.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 8, true): { aluMI(HotSub.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8, false): { aluMI(HotSub.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func xor(_ form: HotForm, _ size: Int, live: Bool) -> Handler? {
        switch (form, size, live) {
        case (.rr, 1, true): { aluRR(HotXor.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.rr, 1, false): { aluRR(HotXor.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.rr, 4, true): { aluRR(HotXor.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.rr, 4, false): { aluRR(HotXor.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.rr, 8, true): { aluRR(HotXor.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.rr, 8, false): { aluRR(HotXor.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.ri, 1, true): { aluRI(HotXor.self, UInt8.self, true, $0, $1, $2, $3) }
        case (.ri, 1, false): { aluRI(HotXor.self, UInt8.self, false, $0, $1, $2, $3) }
        case (.ri, 4, true): { aluRI(HotXor.self, UInt32.self, true, $0, $1, $2, $3) }
        case (.ri, 4, false): { aluRI(HotXor.self, UInt32.self, false, $0, $1, $2, $3) }
        case (.ri, 8, true): { aluRI(HotXor.self, UInt64.self, true, $0, $1, $2, $3) }
        case (.ri, 8, false): { aluRI(HotXor.self, UInt64.self, false, $0, $1, $2, $3) }
        case (.rm, 1, true): { aluRM(HotXor.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 1, false): { aluRM(HotXor.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 4, true): { aluRM(HotXor.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 4, false): { aluRM(HotXor.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rm, 8, true): { aluRM(HotXor.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.rm, 8, false): { aluRM(HotXor.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 1, true): { aluMR(HotXor.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 1, false): { aluMR(HotXor.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 4, true): { aluMR(HotXor.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 4, false): { aluMR(HotXor.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mr, 8, true): { aluMR(HotXor.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mr, 8, false): { aluMR(HotXor.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 1, true): { aluMI(HotXor.self, UInt8.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 1, false): { aluMI(HotXor.self, UInt8.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 4, true): { aluMI(HotXor.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 4, false): { aluMI(HotXor.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.mi, 8, true): { aluMI(HotXor.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (.mi, 8, false): { aluMI(HotXor.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (.rx, 1, true): { aluRM(HotXor.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 1, false): { aluRM(HotXor.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 4, true): { aluRM(HotXor.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 4, false): { aluRM(HotXor.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.rx, 8, true): { aluRM(HotXor.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.rx, 8, false): { aluRM(HotXor.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 1, true): { aluMR(HotXor.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 1, false): { aluMR(HotXor.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 4, true): { aluMR(HotXor.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 4, false): { aluMR(HotXor.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xr, 8, true): { aluMR(HotXor.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xr, 8, false): { aluMR(HotXor.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 1, true): { aluMI(HotXor.self, UInt8.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 1, false): { aluMI(HotXor.self, UInt8.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 4, true): { aluMI(HotXor.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 4, false): { aluMI(HotXor.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (.xi, 8, true): { aluMI(HotXor.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (.xi, 8, false): { aluMI(HotXor.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func compare(_ form: HotForm, _ size: Int) -> Handler? {
        switch (form, size) {
        case (.rr, 1): { cpu, op, _, _ in testRR(HotSub.self, UInt8.self, cpu, op) }
        case (.rr, 4): { cpu, op, _, _ in testRR(HotSub.self, UInt32.self, cpu, op) }
        case (.rr, 8): { cpu, op, _, _ in testRR(HotSub.self, UInt64.self, cpu, op) }
        case (.ri, 1): { cpu, op, _, _ in testRI(HotSub.self, UInt8.self, cpu, op) }
        case (.ri, 4): { cpu, op, _, _ in testRI(HotSub.self, UInt32.self, cpu, op) }
        case (.ri, 8): { cpu, op, _, _ in testRI(HotSub.self, UInt64.self, cpu, op) }
        case (.rm, 1): { testRM(HotSub.self, UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (.rm, 4): { testRM(HotSub.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (.rm, 8): { testRM(HotSub.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (.mr, 1): { testMR(HotSub.self, UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (.mr, 4): { testMR(HotSub.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (.mr, 8): { testMR(HotSub.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 1): { testMI(HotSub.self, UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 4): { testMI(HotSub.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 8): { testMI(HotSub.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (.rx, 1): { testRM(HotSub.self, UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.rx, 4): { testRM(HotSub.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.rx, 8): { testRM(HotSub.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xr, 1): { testMR(HotSub.self, UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xr, 4): { testMR(HotSub.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xr, 8): { testMR(HotSub.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 1): { testMI(HotSub.self, UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 4): { testMI(HotSub.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 8): { testMI(HotSub.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func test(_ form: HotForm, _ size: Int) -> Handler? {
        switch (form, size) {
        case (.rr, 1): { cpu, op, _, _ in testRR(HotAnd.self, UInt8.self, cpu, op) }
        case (.rr, 4): { cpu, op, _, _ in testRR(HotAnd.self, UInt32.self, cpu, op) }
        case (.rr, 8): { cpu, op, _, _ in testRR(HotAnd.self, UInt64.self, cpu, op) }
        case (.ri, 1): { cpu, op, _, _ in testRI(HotAnd.self, UInt8.self, cpu, op) }
        case (.ri, 4): { cpu, op, _, _ in testRI(HotAnd.self, UInt32.self, cpu, op) }
        case (.ri, 8): { cpu, op, _, _ in testRI(HotAnd.self, UInt64.self, cpu, op) }
        case (.mr, 1): { testMR(HotAnd.self, UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (.mr, 4): { testMR(HotAnd.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (.mr, 8): { testMR(HotAnd.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 1): { testMI(HotAnd.self, UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 4): { testMI(HotAnd.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (.mi, 8): { testMI(HotAnd.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (.xr, 1): { testMR(HotAnd.self, UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xr, 4): { testMR(HotAnd.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xr, 8): { testMR(HotAnd.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 1): { testMI(HotAnd.self, UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 4): { testMI(HotAnd.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (.xi, 8): { testMI(HotAnd.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func compareBranch(_ form: HotForm, _ size: Int, _ code: UInt8) -> Handler? {
        switch form {
        case .rr: compareBranchRR(size, code)
        case .ri: compareBranchRI(size, code)
        case .rm: compareBranchRM(size, code)
        case .mr: compareBranchMR(size, code)
        case .mi: compareBranchMI(size, code)
        case .rx: compareBranchRX(size, code)
        case .xr: compareBranchXR(size, code)
        case .xi: compareBranchXI(size, code)
        }
    }

    private static func compareBranchRR(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 2, cpu, op) }
        case (1, 3): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 3, cpu, op) }
        case (1, 4): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 4, cpu, op) }
        case (1, 5): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 5, cpu, op) }
        case (1, 6): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 6, cpu, op) }
        case (1, 7): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 7, cpu, op) }
        case (1, 8): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 8, cpu, op) }
        case (1, 9): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 9, cpu, op) }
        case (1, 12): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 12, cpu, op) }
        case (1, 13): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 13, cpu, op) }
        case (1, 14): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 14, cpu, op) }
        case (1, 15): { cpu, op, _, _ in branchRR(HotSub.self, UInt8.self, 15, cpu, op) }
        case (4, 2): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 2, cpu, op) }
        case (4, 3): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 3, cpu, op) }
        case (4, 4): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 4, cpu, op) }
        case (4, 5): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 5, cpu, op) }
        case (4, 6): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 6, cpu, op) }
        case (4, 7): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 7, cpu, op) }
        case (4, 8): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 8, cpu, op) }
        case (4, 9): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 9, cpu, op) }
        case (4, 12): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 12, cpu, op) }
        case (4, 13): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 13, cpu, op) }
        case (4, 14): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 14, cpu, op) }
        case (4, 15): { cpu, op, _, _ in branchRR(HotSub.self, UInt32.self, 15, cpu, op) }
        case (8, 2): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 2, cpu, op) }
        case (8, 3): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 3, cpu, op) }
        case (8, 4): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 4, cpu, op) }
        case (8, 5): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 5, cpu, op) }
        case (8, 6): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 6, cpu, op) }
        case (8, 7): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 7, cpu, op) }
        case (8, 8): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 8, cpu, op) }
        case (8, 9): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 9, cpu, op) }
        case (8, 12): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 12, cpu, op) }
        case (8, 13): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 13, cpu, op) }
        case (8, 14): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 14, cpu, op) }
        case (8, 15): { cpu, op, _, _ in branchRR(HotSub.self, UInt64.self, 15, cpu, op) }
        default: nil
        }
    }

    private static func compareBranchRI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 2, cpu, op) }
        case (1, 3): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 3, cpu, op) }
        case (1, 4): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 4, cpu, op) }
        case (1, 5): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 5, cpu, op) }
        case (1, 6): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 6, cpu, op) }
        case (1, 7): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 7, cpu, op) }
        case (1, 8): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 8, cpu, op) }
        case (1, 9): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 9, cpu, op) }
        case (1, 12): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 12, cpu, op) }
        case (1, 13): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 13, cpu, op) }
        case (1, 14): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 14, cpu, op) }
        case (1, 15): { cpu, op, _, _ in branchRI(HotSub.self, UInt8.self, 15, cpu, op) }
        case (4, 2): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 2, cpu, op) }
        case (4, 3): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 3, cpu, op) }
        case (4, 4): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 4, cpu, op) }
        case (4, 5): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 5, cpu, op) }
        case (4, 6): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 6, cpu, op) }
        case (4, 7): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 7, cpu, op) }
        case (4, 8): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 8, cpu, op) }
        case (4, 9): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 9, cpu, op) }
        case (4, 12): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 12, cpu, op) }
        case (4, 13): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 13, cpu, op) }
        case (4, 14): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 14, cpu, op) }
        case (4, 15): { cpu, op, _, _ in branchRI(HotSub.self, UInt32.self, 15, cpu, op) }
        case (8, 2): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 2, cpu, op) }
        case (8, 3): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 3, cpu, op) }
        case (8, 4): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 4, cpu, op) }
        case (8, 5): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 5, cpu, op) }
        case (8, 6): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 6, cpu, op) }
        case (8, 7): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 7, cpu, op) }
        case (8, 8): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 8, cpu, op) }
        case (8, 9): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 9, cpu, op) }
        case (8, 12): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 12, cpu, op) }
        case (8, 13): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 13, cpu, op) }
        case (8, 14): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 14, cpu, op) }
        case (8, 15): { cpu, op, _, _ in branchRI(HotSub.self, UInt64.self, 15, cpu, op) }
        default: nil
        }
    }

    private static func compareBranchRM(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchRM(HotSub.self, UInt8.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchRM(HotSub.self, UInt8.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchRM(HotSub.self, UInt8.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchRM(HotSub.self, UInt8.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchRM(HotSub.self, UInt8.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchRM(HotSub.self, UInt8.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchRM(HotSub.self, UInt8.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchRM(HotSub.self, UInt8.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchRM(HotSub.self, UInt8.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchRM(HotSub.self, UInt8.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchRM(HotSub.self, UInt8.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchRM(HotSub.self, UInt8.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchRM(HotSub.self, UInt32.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchRM(HotSub.self, UInt32.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchRM(HotSub.self, UInt32.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchRM(HotSub.self, UInt32.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchRM(HotSub.self, UInt32.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchRM(HotSub.self, UInt32.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchRM(HotSub.self, UInt32.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchRM(HotSub.self, UInt32.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchRM(HotSub.self, UInt32.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchRM(HotSub.self, UInt32.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchRM(HotSub.self, UInt32.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchRM(HotSub.self, UInt32.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchRM(HotSub.self, UInt64.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchRM(HotSub.self, UInt64.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchRM(HotSub.self, UInt64.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchRM(HotSub.self, UInt64.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchRM(HotSub.self, UInt64.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchRM(HotSub.self, UInt64.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchRM(HotSub.self, UInt64.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchRM(HotSub.self, UInt64.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchRM(HotSub.self, UInt64.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchRM(HotSub.self, UInt64.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchRM(HotSub.self, UInt64.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchRM(HotSub.self, UInt64.self, HotBased.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func compareBranchMR(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchMR(HotSub.self, UInt8.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchMR(HotSub.self, UInt8.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchMR(HotSub.self, UInt8.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMR(HotSub.self, UInt8.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchMR(HotSub.self, UInt8.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchMR(HotSub.self, UInt8.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchMR(HotSub.self, UInt8.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMR(HotSub.self, UInt8.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchMR(HotSub.self, UInt8.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchMR(HotSub.self, UInt8.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchMR(HotSub.self, UInt8.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMR(HotSub.self, UInt8.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchMR(HotSub.self, UInt32.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchMR(HotSub.self, UInt32.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchMR(HotSub.self, UInt32.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMR(HotSub.self, UInt32.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchMR(HotSub.self, UInt32.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchMR(HotSub.self, UInt32.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchMR(HotSub.self, UInt32.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMR(HotSub.self, UInt32.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchMR(HotSub.self, UInt32.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchMR(HotSub.self, UInt32.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchMR(HotSub.self, UInt32.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMR(HotSub.self, UInt32.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchMR(HotSub.self, UInt64.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchMR(HotSub.self, UInt64.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchMR(HotSub.self, UInt64.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMR(HotSub.self, UInt64.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchMR(HotSub.self, UInt64.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchMR(HotSub.self, UInt64.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchMR(HotSub.self, UInt64.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMR(HotSub.self, UInt64.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchMR(HotSub.self, UInt64.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchMR(HotSub.self, UInt64.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchMR(HotSub.self, UInt64.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMR(HotSub.self, UInt64.self, HotBased.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func compareBranchMI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchMI(HotSub.self, UInt8.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchMI(HotSub.self, UInt8.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchMI(HotSub.self, UInt8.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMI(HotSub.self, UInt8.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchMI(HotSub.self, UInt8.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchMI(HotSub.self, UInt8.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchMI(HotSub.self, UInt8.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMI(HotSub.self, UInt8.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchMI(HotSub.self, UInt8.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchMI(HotSub.self, UInt8.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchMI(HotSub.self, UInt8.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMI(HotSub.self, UInt8.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchMI(HotSub.self, UInt32.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchMI(HotSub.self, UInt32.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchMI(HotSub.self, UInt32.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMI(HotSub.self, UInt32.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchMI(HotSub.self, UInt32.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchMI(HotSub.self, UInt32.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchMI(HotSub.self, UInt32.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMI(HotSub.self, UInt32.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchMI(HotSub.self, UInt32.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchMI(HotSub.self, UInt32.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchMI(HotSub.self, UInt32.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMI(HotSub.self, UInt32.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchMI(HotSub.self, UInt64.self, HotBased.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchMI(HotSub.self, UInt64.self, HotBased.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchMI(HotSub.self, UInt64.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMI(HotSub.self, UInt64.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchMI(HotSub.self, UInt64.self, HotBased.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchMI(HotSub.self, UInt64.self, HotBased.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchMI(HotSub.self, UInt64.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMI(HotSub.self, UInt64.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchMI(HotSub.self, UInt64.self, HotBased.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchMI(HotSub.self, UInt64.self, HotBased.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchMI(HotSub.self, UInt64.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMI(HotSub.self, UInt64.self, HotBased.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func compareBranchRX(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchRM(HotSub.self, UInt8.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchRM(HotSub.self, UInt32.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchRM(HotSub.self, UInt64.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func compareBranchXR(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMR(HotSub.self, UInt8.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMR(HotSub.self, UInt32.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMR(HotSub.self, UInt64.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func compareBranchXI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 2): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (1, 3): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (1, 4): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (1, 6): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (1, 7): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (1, 8): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (1, 12): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (1, 13): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (1, 14): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMI(HotSub.self, UInt8.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (4, 2): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (4, 3): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (4, 4): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (4, 6): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (4, 7): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (4, 8): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (4, 12): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (4, 13): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (4, 14): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMI(HotSub.self, UInt32.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (8, 2): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 2, $0, $1, $2, $3) }
        case (8, 3): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 3, $0, $1, $2, $3) }
        case (8, 4): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (8, 6): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 6, $0, $1, $2, $3) }
        case (8, 7): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 7, $0, $1, $2, $3) }
        case (8, 8): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (8, 12): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 12, $0, $1, $2, $3) }
        case (8, 13): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 13, $0, $1, $2, $3) }
        case (8, 14): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMI(HotSub.self, UInt64.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func testBranch(_ form: HotForm, _ size: Int, _ code: UInt8) -> Handler? {
        switch form {
        case .rr: testBranchRR(size, code)
        case .ri: testBranchRI(size, code)
        case .mi: testBranchMI(size, code)
        case .xi: testBranchXI(size, code)
        default: nil
        }
    }

    private static func testBranchRR(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 4): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 4, cpu, op) }
        case (1, 5): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 5, cpu, op) }
        case (1, 8): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 8, cpu, op) }
        case (1, 9): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 9, cpu, op) }
        case (1, 14): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 14, cpu, op) }
        case (1, 15): { cpu, op, _, _ in branchRR(HotAnd.self, UInt8.self, 15, cpu, op) }
        case (4, 4): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 4, cpu, op) }
        case (4, 5): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 5, cpu, op) }
        case (4, 8): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 8, cpu, op) }
        case (4, 9): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 9, cpu, op) }
        case (4, 14): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 14, cpu, op) }
        case (4, 15): { cpu, op, _, _ in branchRR(HotAnd.self, UInt32.self, 15, cpu, op) }
        case (8, 4): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 4, cpu, op) }
        case (8, 5): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 5, cpu, op) }
        case (8, 8): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 8, cpu, op) }
        case (8, 9): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 9, cpu, op) }
        case (8, 14): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 14, cpu, op) }
        case (8, 15): { cpu, op, _, _ in branchRR(HotAnd.self, UInt64.self, 15, cpu, op) }
        default: nil
        }
    }

    private static func testBranchRI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 4): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 4, cpu, op) }
        case (1, 5): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 5, cpu, op) }
        case (1, 8): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 8, cpu, op) }
        case (1, 9): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 9, cpu, op) }
        case (1, 14): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 14, cpu, op) }
        case (1, 15): { cpu, op, _, _ in branchRI(HotAnd.self, UInt8.self, 15, cpu, op) }
        case (4, 4): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 4, cpu, op) }
        case (4, 5): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 5, cpu, op) }
        case (4, 8): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 8, cpu, op) }
        case (4, 9): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 9, cpu, op) }
        case (4, 14): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 14, cpu, op) }
        case (4, 15): { cpu, op, _, _ in branchRI(HotAnd.self, UInt32.self, 15, cpu, op) }
        case (8, 4): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 4, cpu, op) }
        case (8, 5): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 5, cpu, op) }
        case (8, 8): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 8, cpu, op) }
        case (8, 9): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 9, cpu, op) }
        case (8, 14): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 14, cpu, op) }
        case (8, 15): { cpu, op, _, _ in branchRI(HotAnd.self, UInt64.self, 15, cpu, op) }
        default: nil
        }
    }

    private static func testBranchMI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 4): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (1, 8): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (1, 14): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMI(HotAnd.self, UInt8.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (4, 4): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (4, 8): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (4, 14): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMI(HotAnd.self, UInt32.self, HotBased.self, 15, $0, $1, $2, $3) }
        case (8, 4): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 5, $0, $1, $2, $3) }
        case (8, 8): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 9, $0, $1, $2, $3) }
        case (8, 14): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMI(HotAnd.self, UInt64.self, HotBased.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func testBranchXI(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (1, 4): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (1, 5): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (1, 8): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (1, 9): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (1, 14): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (1, 15): { branchMI(HotAnd.self, UInt8.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (4, 4): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (4, 5): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (4, 8): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (4, 9): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (4, 14): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (4, 15): { branchMI(HotAnd.self, UInt32.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        case (8, 4): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 4, $0, $1, $2, $3) }
        case (8, 5): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 5, $0, $1, $2, $3) }
        case (8, 8): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 8, $0, $1, $2, $3) }
        case (8, 9): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 9, $0, $1, $2, $3) }
        case (8, 14): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 14, $0, $1, $2, $3) }
        case (8, 15): { branchMI(HotAnd.self, UInt64.self, HotIndexed.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func branch(_ code: UInt8) -> Handler {
        switch code {
        case 0: { branchIf(0, $0, $1, $2, $3) }
        case 1: { branchIf(1, $0, $1, $2, $3) }
        case 2: { branchIf(2, $0, $1, $2, $3) }
        case 3: { branchIf(3, $0, $1, $2, $3) }
        case 4: { branchIf(4, $0, $1, $2, $3) }
        case 5: { branchIf(5, $0, $1, $2, $3) }
        case 6: { branchIf(6, $0, $1, $2, $3) }
        case 7: { branchIf(7, $0, $1, $2, $3) }
        case 8: { branchIf(8, $0, $1, $2, $3) }
        case 9: { branchIf(9, $0, $1, $2, $3) }
        case 10: { branchIf(10, $0, $1, $2, $3) }
        case 11: { branchIf(11, $0, $1, $2, $3) }
        case 12: { branchIf(12, $0, $1, $2, $3) }
        case 13: { branchIf(13, $0, $1, $2, $3) }
        case 14: { branchIf(14, $0, $1, $2, $3) }
        default: { branchIf(15, $0, $1, $2, $3) }
        }
    }

    static func moveIf(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (4, 0): { SoftCPU.moveIf(UInt32.self, 0, $0, $1, $2, $3) }
        case (4, 1): { SoftCPU.moveIf(UInt32.self, 1, $0, $1, $2, $3) }
        case (4, 2): { SoftCPU.moveIf(UInt32.self, 2, $0, $1, $2, $3) }
        case (4, 3): { SoftCPU.moveIf(UInt32.self, 3, $0, $1, $2, $3) }
        case (4, 4): { SoftCPU.moveIf(UInt32.self, 4, $0, $1, $2, $3) }
        case (4, 5): { SoftCPU.moveIf(UInt32.self, 5, $0, $1, $2, $3) }
        case (4, 6): { SoftCPU.moveIf(UInt32.self, 6, $0, $1, $2, $3) }
        case (4, 7): { SoftCPU.moveIf(UInt32.self, 7, $0, $1, $2, $3) }
        case (4, 8): { SoftCPU.moveIf(UInt32.self, 8, $0, $1, $2, $3) }
        case (4, 9): { SoftCPU.moveIf(UInt32.self, 9, $0, $1, $2, $3) }
        case (4, 10): { SoftCPU.moveIf(UInt32.self, 10, $0, $1, $2, $3) }
        case (4, 11): { SoftCPU.moveIf(UInt32.self, 11, $0, $1, $2, $3) }
        case (4, 12): { SoftCPU.moveIf(UInt32.self, 12, $0, $1, $2, $3) }
        case (4, 13): { SoftCPU.moveIf(UInt32.self, 13, $0, $1, $2, $3) }
        case (4, 14): { SoftCPU.moveIf(UInt32.self, 14, $0, $1, $2, $3) }
        case (4, 15): { SoftCPU.moveIf(UInt32.self, 15, $0, $1, $2, $3) }
        case (8, 0): { SoftCPU.moveIf(UInt64.self, 0, $0, $1, $2, $3) }
        case (8, 1): { SoftCPU.moveIf(UInt64.self, 1, $0, $1, $2, $3) }
        case (8, 2): { SoftCPU.moveIf(UInt64.self, 2, $0, $1, $2, $3) }
        case (8, 3): { SoftCPU.moveIf(UInt64.self, 3, $0, $1, $2, $3) }
        case (8, 4): { SoftCPU.moveIf(UInt64.self, 4, $0, $1, $2, $3) }
        case (8, 5): { SoftCPU.moveIf(UInt64.self, 5, $0, $1, $2, $3) }
        case (8, 6): { SoftCPU.moveIf(UInt64.self, 6, $0, $1, $2, $3) }
        case (8, 7): { SoftCPU.moveIf(UInt64.self, 7, $0, $1, $2, $3) }
        case (8, 8): { SoftCPU.moveIf(UInt64.self, 8, $0, $1, $2, $3) }
        case (8, 9): { SoftCPU.moveIf(UInt64.self, 9, $0, $1, $2, $3) }
        case (8, 10): { SoftCPU.moveIf(UInt64.self, 10, $0, $1, $2, $3) }
        case (8, 11): { SoftCPU.moveIf(UInt64.self, 11, $0, $1, $2, $3) }
        case (8, 12): { SoftCPU.moveIf(UInt64.self, 12, $0, $1, $2, $3) }
        case (8, 13): { SoftCPU.moveIf(UInt64.self, 13, $0, $1, $2, $3) }
        case (8, 14): { SoftCPU.moveIf(UInt64.self, 14, $0, $1, $2, $3) }
        case (8, 15): { SoftCPU.moveIf(UInt64.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func loadIf(_ size: Int, _ code: UInt8) -> Handler? {
        switch (size, code) {
        case (4, 0): { SoftCPU.loadIf(UInt32.self, 0, $0, $1, $2, $3) }
        case (4, 1): { SoftCPU.loadIf(UInt32.self, 1, $0, $1, $2, $3) }
        case (4, 2): { SoftCPU.loadIf(UInt32.self, 2, $0, $1, $2, $3) }
        case (4, 3): { SoftCPU.loadIf(UInt32.self, 3, $0, $1, $2, $3) }
        case (4, 4): { SoftCPU.loadIf(UInt32.self, 4, $0, $1, $2, $3) }
        case (4, 5): { SoftCPU.loadIf(UInt32.self, 5, $0, $1, $2, $3) }
        case (4, 6): { SoftCPU.loadIf(UInt32.self, 6, $0, $1, $2, $3) }
        case (4, 7): { SoftCPU.loadIf(UInt32.self, 7, $0, $1, $2, $3) }
        case (4, 8): { SoftCPU.loadIf(UInt32.self, 8, $0, $1, $2, $3) }
        case (4, 9): { SoftCPU.loadIf(UInt32.self, 9, $0, $1, $2, $3) }
        case (4, 10): { SoftCPU.loadIf(UInt32.self, 10, $0, $1, $2, $3) }
        case (4, 11): { SoftCPU.loadIf(UInt32.self, 11, $0, $1, $2, $3) }
        case (4, 12): { SoftCPU.loadIf(UInt32.self, 12, $0, $1, $2, $3) }
        case (4, 13): { SoftCPU.loadIf(UInt32.self, 13, $0, $1, $2, $3) }
        case (4, 14): { SoftCPU.loadIf(UInt32.self, 14, $0, $1, $2, $3) }
        case (4, 15): { SoftCPU.loadIf(UInt32.self, 15, $0, $1, $2, $3) }
        case (8, 0): { SoftCPU.loadIf(UInt64.self, 0, $0, $1, $2, $3) }
        case (8, 1): { SoftCPU.loadIf(UInt64.self, 1, $0, $1, $2, $3) }
        case (8, 2): { SoftCPU.loadIf(UInt64.self, 2, $0, $1, $2, $3) }
        case (8, 3): { SoftCPU.loadIf(UInt64.self, 3, $0, $1, $2, $3) }
        case (8, 4): { SoftCPU.loadIf(UInt64.self, 4, $0, $1, $2, $3) }
        case (8, 5): { SoftCPU.loadIf(UInt64.self, 5, $0, $1, $2, $3) }
        case (8, 6): { SoftCPU.loadIf(UInt64.self, 6, $0, $1, $2, $3) }
        case (8, 7): { SoftCPU.loadIf(UInt64.self, 7, $0, $1, $2, $3) }
        case (8, 8): { SoftCPU.loadIf(UInt64.self, 8, $0, $1, $2, $3) }
        case (8, 9): { SoftCPU.loadIf(UInt64.self, 9, $0, $1, $2, $3) }
        case (8, 10): { SoftCPU.loadIf(UInt64.self, 10, $0, $1, $2, $3) }
        case (8, 11): { SoftCPU.loadIf(UInt64.self, 11, $0, $1, $2, $3) }
        case (8, 12): { SoftCPU.loadIf(UInt64.self, 12, $0, $1, $2, $3) }
        case (8, 13): { SoftCPU.loadIf(UInt64.self, 13, $0, $1, $2, $3) }
        case (8, 14): { SoftCPU.loadIf(UInt64.self, 14, $0, $1, $2, $3) }
        case (8, 15): { SoftCPU.loadIf(UInt64.self, 15, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func setIf(_ code: UInt8) -> Handler {
        switch code {
        case 0: { SoftCPU.setIf(0, $0, $1, $2, $3) }
        case 1: { SoftCPU.setIf(1, $0, $1, $2, $3) }
        case 2: { SoftCPU.setIf(2, $0, $1, $2, $3) }
        case 3: { SoftCPU.setIf(3, $0, $1, $2, $3) }
        case 4: { SoftCPU.setIf(4, $0, $1, $2, $3) }
        case 5: { SoftCPU.setIf(5, $0, $1, $2, $3) }
        case 6: { SoftCPU.setIf(6, $0, $1, $2, $3) }
        case 7: { SoftCPU.setIf(7, $0, $1, $2, $3) }
        case 8: { SoftCPU.setIf(8, $0, $1, $2, $3) }
        case 9: { SoftCPU.setIf(9, $0, $1, $2, $3) }
        case 10: { SoftCPU.setIf(10, $0, $1, $2, $3) }
        case 11: { SoftCPU.setIf(11, $0, $1, $2, $3) }
        case 12: { SoftCPU.setIf(12, $0, $1, $2, $3) }
        case 13: { SoftCPU.setIf(13, $0, $1, $2, $3) }
        case 14: { SoftCPU.setIf(14, $0, $1, $2, $3) }
        default: { SoftCPU.setIf(15, $0, $1, $2, $3) }
        }
    }

    static func moveRR(_ size: Int) -> Handler? {
        switch size {
        case 1: { SoftCPU.moveRR(UInt8.self, $0, $1, $2, $3) }
        case 2: { SoftCPU.moveRR(UInt16.self, $0, $1, $2, $3) }
        case 4: { SoftCPU.moveRR(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.moveRR(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func load(_ size: Int, indexed: Bool) -> Handler? {
        switch (size, indexed) {
        case (1, false): { SoftCPU.load(UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (1, true): { SoftCPU.load(UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, false): { SoftCPU.load(UInt16.self, HotBased.self, $0, $1, $2, $3) }
        case (2, true): { SoftCPU.load(UInt16.self, HotIndexed.self, $0, $1, $2, $3) }
        case (4, false): { SoftCPU.load(UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (4, true): { SoftCPU.load(UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (8, false): { SoftCPU.load(UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (8, true): { SoftCPU.load(UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func store(_ size: Int, indexed: Bool) -> Handler? {
        switch (size, indexed) {
        case (1, false): { SoftCPU.store(UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (1, true): { SoftCPU.store(UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, false): { SoftCPU.store(UInt16.self, HotBased.self, $0, $1, $2, $3) }
        case (2, true): { SoftCPU.store(UInt16.self, HotIndexed.self, $0, $1, $2, $3) }
        case (4, false): { SoftCPU.store(UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (4, true): { SoftCPU.store(UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (8, false): { SoftCPU.store(UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (8, true): { SoftCPU.store(UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func storeI(_ size: Int, indexed: Bool) -> Handler? {
        switch (size, indexed) {
        case (1, false): { SoftCPU.storeI(UInt8.self, HotBased.self, $0, $1, $2, $3) }
        case (1, true): { SoftCPU.storeI(UInt8.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, false): { SoftCPU.storeI(UInt16.self, HotBased.self, $0, $1, $2, $3) }
        case (2, true): { SoftCPU.storeI(UInt16.self, HotIndexed.self, $0, $1, $2, $3) }
        case (4, false): { SoftCPU.storeI(UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (4, true): { SoftCPU.storeI(UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (8, false): { SoftCPU.storeI(UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (8, true): { SoftCPU.storeI(UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func loadAddress(_ size: Int, indexed: Bool) -> Handler? {
        switch (size, indexed) {
        case (4, false): { SoftCPU.loadAddress(UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (4, true): { SoftCPU.loadAddress(UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (8, false): { SoftCPU.loadAddress(UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (8, true): { SoftCPU.loadAddress(UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func invert(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.invert(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.invert(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func rotateI(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.rotateI(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.rotateI(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func multiplyRM(_ size: Int) -> Handler? {
        switch size {
        case 4: { SoftCPU.multiplyRM(UInt32.self, $0, $1, $2, $3) }
        case 8: { SoftCPU.multiplyRM(UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func negate(_ size: Int) -> Handler? {
        switch size {
        case 4: { cpu, op, _, _ in SoftCPU.negate(UInt32.self, cpu, op) }
        case 8: { cpu, op, _, _ in SoftCPU.negate(UInt64.self, cpu, op) }
        default: nil
        }
    }

    static func multiplyRR(_ size: Int) -> Handler? {
        switch size {
        case 4: { cpu, op, _, _ in SoftCPU.multiplyRR(UInt32.self, cpu, op) }
        case 8: { cpu, op, _, _ in SoftCPU.multiplyRR(UInt64.self, cpu, op) }
        default: nil
        }
    }

    static func multiplyRI(_ size: Int) -> Handler? {
        switch size {
        case 4: { cpu, op, _, _ in SoftCPU.multiplyRI(UInt32.self, cpu, op) }
        case 8: { cpu, op, _, _ in SoftCPU.multiplyRI(UInt64.self, cpu, op) }
        default: nil
        }
    }

    static func increment(_ size: Int, live: Bool) -> Handler? {
        switch (size, live) {
        case (4, true): { step(HotAdd.self, UInt32.self, true, $0, $1, $2, $3) }
        case (4, false): { step(HotAdd.self, UInt32.self, false, $0, $1, $2, $3) }
        case (8, true): { step(HotAdd.self, UInt64.self, true, $0, $1, $2, $3) }
        case (8, false): { step(HotAdd.self, UInt64.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func incrementM(_ size: Int, live: Bool, indexed: Bool) -> Handler? {
        switch (size, live, indexed) {
        case (4, true, false): { stepM(HotAdd.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (4, true, true): { stepM(HotAdd.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (4, false, false): { stepM(HotAdd.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (4, false, true): { stepM(HotAdd.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (8, true, false): { stepM(HotAdd.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (8, true, true): { stepM(HotAdd.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (8, false, false): { stepM(HotAdd.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (8, false, true): { stepM(HotAdd.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func decrement(_ size: Int, live: Bool) -> Handler? {
        switch (size, live) {
        case (4, true): { step(HotSub.self, UInt32.self, true, $0, $1, $2, $3) }
        case (4, false): { step(HotSub.self, UInt32.self, false, $0, $1, $2, $3) }
        case (8, true): { step(HotSub.self, UInt64.self, true, $0, $1, $2, $3) }
        case (8, false): { step(HotSub.self, UInt64.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func decrementM(_ size: Int, live: Bool, indexed: Bool) -> Handler? {
        switch (size, live, indexed) {
        case (4, true, false): { stepM(HotSub.self, UInt32.self, HotBased.self, true, $0, $1, $2, $3) }
        case (4, true, true): { stepM(HotSub.self, UInt32.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (4, false, false): { stepM(HotSub.self, UInt32.self, HotBased.self, false, $0, $1, $2, $3) }
        case (4, false, true): { stepM(HotSub.self, UInt32.self, HotIndexed.self, false, $0, $1, $2, $3) }
        case (8, true, false): { stepM(HotSub.self, UInt64.self, HotBased.self, true, $0, $1, $2, $3) }
        case (8, true, true): { stepM(HotSub.self, UInt64.self, HotIndexed.self, true, $0, $1, $2, $3) }
        case (8, false, false): { stepM(HotSub.self, UInt64.self, HotBased.self, false, $0, $1, $2, $3) }
        case (8, false, true): { stepM(HotSub.self, UInt64.self, HotIndexed.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftLeft(_ size: Int, live: Bool) -> Handler? {
        switch (size, live) {
        case (4, true): { shiftI(.left, UInt32.self, true, $0, $1, $2, $3) }
        case (4, false): { shiftI(.left, UInt32.self, false, $0, $1, $2, $3) }
        case (8, true): { shiftI(.left, UInt64.self, true, $0, $1, $2, $3) }
        case (8, false): { shiftI(.left, UInt64.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftLeftByCL(_ size: Int) -> Handler? {
        switch size {
        case 4: { shiftC(.left, UInt32.self, $0, $1, $2, $3) }
        case 8: { shiftC(.left, UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftRight(_ size: Int, live: Bool) -> Handler? {
        switch (size, live) {
        case (4, true): { shiftI(.right, UInt32.self, true, $0, $1, $2, $3) }
        case (4, false): { shiftI(.right, UInt32.self, false, $0, $1, $2, $3) }
        case (8, true): { shiftI(.right, UInt64.self, true, $0, $1, $2, $3) }
        case (8, false): { shiftI(.right, UInt64.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftRightByCL(_ size: Int) -> Handler? {
        switch size {
        case 4: { shiftC(.right, UInt32.self, $0, $1, $2, $3) }
        case 8: { shiftC(.right, UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftArithmetic(_ size: Int, live: Bool) -> Handler? {
        switch (size, live) {
        case (4, true): { shiftI(.arithmetic, UInt32.self, true, $0, $1, $2, $3) }
        case (4, false): { shiftI(.arithmetic, UInt32.self, false, $0, $1, $2, $3) }
        case (8, true): { shiftI(.arithmetic, UInt64.self, true, $0, $1, $2, $3) }
        case (8, false): { shiftI(.arithmetic, UInt64.self, false, $0, $1, $2, $3) }
        default: nil
        }
    }

    static func shiftArithmeticByCL(_ size: Int) -> Handler? {
        switch size {
        case 4: { shiftC(.arithmetic, UInt32.self, $0, $1, $2, $3) }
        case 8: { shiftC(.arithmetic, UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    /// From `from` bytes to `to`.
    static func extendR(_ from: Int, _ to: Int, signed: Bool) -> Handler? {
        switch (from, to, signed) {
        case (1, 4, false): { SoftCPU.extendR(UInt8.self, UInt32.self, $0, $1, $2, $3) }
        case (1, 8, false): { SoftCPU.extendR(UInt8.self, UInt64.self, $0, $1, $2, $3) }
        case (2, 4, false): { SoftCPU.extendR(UInt16.self, UInt32.self, $0, $1, $2, $3) }
        case (2, 8, false): { SoftCPU.extendR(UInt16.self, UInt64.self, $0, $1, $2, $3) }
        case (1, 4, true): { SoftCPU.extendR(Int8.self, UInt32.self, $0, $1, $2, $3) }
        case (1, 8, true): { SoftCPU.extendR(Int8.self, UInt64.self, $0, $1, $2, $3) }
        case (2, 4, true): { SoftCPU.extendR(Int16.self, UInt32.self, $0, $1, $2, $3) }
        case (2, 8, true): { SoftCPU.extendR(Int16.self, UInt64.self, $0, $1, $2, $3) }
        case (4, 8, true): { SoftCPU.extendR(Int32.self, UInt64.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    /// From `from` bytes to `to`.
    static func extendM(_ from: Int, _ to: Int, signed: Bool, indexed: Bool) -> Handler? {
        switch (from, to, signed, indexed) {
        case (1, 4, false, false): { SoftCPU.extendM(UInt8.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (1, 4, false, true): { SoftCPU.extendM(UInt8.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (1, 8, false, false): { SoftCPU.extendM(UInt8.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (1, 8, false, true): { SoftCPU.extendM(UInt8.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, 4, false, false): { SoftCPU.extendM(UInt16.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (2, 4, false, true): { SoftCPU.extendM(UInt16.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, 8, false, false): { SoftCPU.extendM(UInt16.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (2, 8, false, true): { SoftCPU.extendM(UInt16.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (1, 4, true, false): { SoftCPU.extendM(Int8.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (1, 4, true, true): { SoftCPU.extendM(Int8.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (1, 8, true, false): { SoftCPU.extendM(Int8.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (1, 8, true, true): { SoftCPU.extendM(Int8.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, 4, true, false): { SoftCPU.extendM(Int16.self, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case (2, 4, true, true): { SoftCPU.extendM(Int16.self, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case (2, 8, true, false): { SoftCPU.extendM(Int16.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (2, 8, true, true): { SoftCPU.extendM(Int16.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case (4, 8, true, false): { SoftCPU.extendM(Int32.self, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case (4, 8, true, true): { SoftCPU.extendM(Int32.self, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }
}
