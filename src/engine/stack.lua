-- One batch of one edge. Applied as a whole, once, be it sent again or not.
--
-- KEYS      all under one hash tag; see below
-- ARGV 1-4  the edge, the number of its batch, the capacity, the lease in milliseconds
-- ARGV 5-   requests: push ID ITEM | pop ID | cancel ID | delivered ID | undelivered ID | leave
--
-- Batch 0 joins, and has no requests. A number of -1 only checks that the capacity fits.
--
-- Returns: number, items, waiting pushes, waiting pops, 1 if more answers wait, then for each answer the
-- request's ID and its item, which is empty for a push.
--
-- A request is named EDGE:ID. Waiting requests have the engine's sequence number as their score, so they are
-- served in order of arrival over all edges. A popped item is in flight until its edge tells what became of it.
local meta, items, pushes, pops, payloads, flight, edges, replies, answers =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local edge, number, capacity, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local MOST_ANSWERS = 256
local QUIET = 2000 -- milliseconds without a batch of any edge, after which the engine has been away
local call = redis.call

-- Everything is read before anything is written: a key of another type fails here.
local depth, in_flight = call('LLEN', items), call('HLEN', flight)
local waiting_pushes, waiting_pops = call('ZCARD', pushes), call('ZCARD', pops)
call('HLEN', payloads)
call('HLEN', answers)
local kept = call('HGET', replies, edge)
local lives = call('ZSCORE', edges, edge)
local known, seq, seen = unpack(call('HMGET', meta, 'capacity', 'seq', 'seen'))
if known and tonumber(known) ~= capacity then
    return redis.error_reply('CAPACITY ' .. known)
end
if number < 0 then
    return { number, depth, waiting_pushes, waiting_pops, 0 }
end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
seq, seen = tonumber(seq or 0), tonumber(seen or 0)

-- Without memory, pushes wait and pops go on: the first write is refused, and those behind it are not.
local probe = redis.pcall('HSET', meta, 'capacity', capacity)
local no_memory = type(probe) == 'table' and probe.err
if no_memory and string.sub(no_memory, 1, 3) ~= 'OOM' then
    return probe
end
call('HDEL', meta, 'none')

local found = {} -- answers by edge

local function answer(request, item)
    local who, id = string.match(request, '^(.-):(.*)$')
    local list = found[who]
    if not list then
        list = {}
        found[who] = list
    end
    list[#list + 1] = id
    list[#list + 1] = item
end

local function store(request, item)
    call('LPUSH', items, item)
    depth = depth + 1
    answer(request, '')
end

local function hand_out(request)
    local item = call('LPOP', items)
    depth, in_flight, seq = depth - 1, in_flight + 1, seq + 1
    call('HSET', flight, request, seq .. ':' .. item)
    answer(request, item)
end

local function has_room()
    return depth + in_flight < capacity and not no_memory
end

-- Serves what can be served: a push before a pop, each line in order.
local function decide()
    while true do
        if waiting_pushes > 0 and has_room() then
            local request = call('ZPOPMIN', pushes)[1]
            local item = call('HGET', payloads, request)
            call('HDEL', payloads, request)
            waiting_pushes = waiting_pushes - 1
            store(request, item)
        elseif waiting_pops > 0 and depth > 0 then
            waiting_pops = waiting_pops - 1
            hand_out(call('ZPOPMIN', pops)[1])
        else
            return
        end
    end
end

-- A request leaves the flight. Returns its item, if it was there.
local function land(request)
    local value = call('HGET', flight, request)
    if not value then
        return nil
    end
    call('HDEL', flight, request)
    in_flight = in_flight - 1
    return string.match(value, '^%d+:(.*)$')
end

local function put_back(item)
    if item then
        call('LPUSH', items, item)
        depth = depth + 1
    end
end

local function cancel(request)
    if call('ZREM', pushes, request) == 1 then
        call('HDEL', payloads, request)
        waiting_pushes = waiting_pushes - 1
    elseif call('ZREM', pops, request) == 1 then
        waiting_pops = waiting_pops - 1
    else
        put_back(land(request))
    end
end

-- An edge has gone: its requests with it, and its items are back, in the order in which they lay.
local function bury(dead)
    local prefix = dead .. ':'
    local function is_its(request)
        return string.sub(request, 1, #prefix) == prefix
    end
    local back, all = {}, call('HGETALL', flight)
    for n = 1, #all, 2 do
        if is_its(all[n]) then
            back[#back + 1] = { tonumber(string.match(all[n + 1], '^(%d+):')), all[n] }
        end
    end
    table.sort(back, function(one, other) return one[1] > other[1] end)
    for _, entry in ipairs(back) do
        put_back(land(entry[2]))
    end
    for _, line in ipairs({ pushes, pops }) do
        for _, request in ipairs(call('ZRANGE', line, 0, -1)) do
            if is_its(request) then
                cancel(request)
            end
        end
    end
    call('ZREM', edges, dead)
    call('HDEL', replies, dead)
    call('HDEL', answers, dead)
    found[dead] = nil
end

-- Time in which no edge reached the engine counts against none of them.
if now - seen > QUIET or now < seen then
    for _, other in ipairs(call('ZRANGE', edges, 0, -1)) do
        call('ZADD', edges, now + lease, other)
    end
end
for _, dead in ipairs(call('ZRANGEBYSCORE', edges, '-inf', now)) do
    bury(dead)
    lives = dead ~= edge and lives
end

local function hear()
    local applied, reply = nil, nil
    if kept then
        applied, reply = cmsgpack.unpack(kept)
    end
    if number > 0 and not (lives and (applied == number or applied == number - 1)) then
        return redis.error_reply('EXPIRED the edge is not known')
    end
    call('ZADD', edges, now + lease, edge)
    if lives and applied == number then
        return reply
    end
    local leaves = false
    local n = 5
    while ARGV[n] do
        local kind, request = ARGV[n], edge .. ':' .. (ARGV[n + 1] or '')
        if kind == 'push' then
            local item = ARGV[n + 2]
            if waiting_pushes == 0 and has_room() then
                store(request, item)
            else
                seq, waiting_pushes = seq + 1, waiting_pushes + 1
                call('ZADD', pushes, seq, request)
                call('HSET', payloads, request, item)
            end
            n = n + 1
        elseif kind == 'pop' then
            if waiting_pops == 0 and depth > 0 then
                hand_out(request)
            else
                seq, waiting_pops = seq + 1, waiting_pops + 1
                call('ZADD', pops, seq, request)
            end
        elseif kind == 'cancel' then
            cancel(request)
        elseif kind == 'delivered' then
            land(request)
        elseif kind == 'undelivered' then
            put_back(land(request))
        else
            leaves = true
        end
        decide()
        n = n + 2
    end
    if leaves then
        bury(edge)
        decide()
        return { number, depth, waiting_pushes, waiting_pops, 0 }
    end
    return nil
end

decide()
local result = hear()

-- Keeps answers until their edge asks for them.
local function keep(who, list)
    if #list > 0 then
        call('HSET', answers, who, cmsgpack.pack(list))
    else
        call('HDEL', answers, who)
    end
end

-- Returns the answers that wait for an edge, and those that were found just now.
local function all_answers(who)
    local packed = call('HGET', answers, who)
    local all = packed and cmsgpack.unpack(packed) or {}
    for _, value in ipairs(found[who] or {}) do
        all[#all + 1] = value
    end
    return all
end

local tag = string.match(meta, '^(.*:)') .. 'edge:'
for who in pairs(found) do
    if who ~= edge or result then
        keep(who, all_answers(who))
        call('SPUBLISH', tag .. who, '')
    end
end
if not result then
    local all = all_answers(edge)
    local rest = {}
    result = { number, depth, waiting_pushes, waiting_pops, 0 }
    for n = 1, #all, 2 do
        local list = n <= 2 * MOST_ANSWERS and result or rest
        list[#list + 1] = all[n]
        list[#list + 1] = all[n + 1]
    end
    keep(edge, rest)
    result[5] = #rest > 0 and 1 or 0
    call('HSET', replies, edge, cmsgpack.pack(number, result))
end
call('HSET', meta, 'seq', seq, 'seen', now)
return result
