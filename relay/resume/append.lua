-- Append events to the copies of several streams' logs. Atomic, as a script; sent again it changes nothing.
--
-- KEYS  for each stream two: the Redis stream of the events, whose ids are their numbers (7-0); the hash of what is known about it
-- ARGV  the relay that has the streams; how long the events are kept, in ms; how long the hashes are kept, in ms;
--       then for each stream: five words, which are the number of the oldest event that is kept, the number of the first event
--       below, how many events there are below, `open`, or where the stream is over `ok` or `failed`, and the caller; the events
-- An entry of the stream: b the event's fields; or o, after the last event: how the stream ended.
-- Returns for each stream the number of the newest event that is stored: the relay goes on after it. Or -1 where others have
-- ended the stream. In one string, with spaces between, since each value of an answer costs the relay as much as one event.
local owner, keep_events, keep_hash = ARGV[1], ARGV[2], ARGV[3]

local function append(stream, about, caller, first, number, over, from, to)
    local known = redis.call('HMGET', about, 'last', 'over')
    local last, ended = tonumber(known[1] or first - 1), known[2]
    if ended == 'broken' then return -1 end
    if not ended then
        -- Where Redis has lost something, the relay begins with what is missing, or with the oldest event that it keeps.
        if number > last + 1 and number > first then return last end
        for i = from, to do
            if number > last then
                redis.call('XADD', stream, number .. '-0', 'b', ARGV[i])
                last = number
            end
            number = number + 1
        end
        if over ~= 'open' then
            redis.call('XADD', stream, (last + 1) .. '-0', 'o', over)
            redis.call('HSET', about, 'over', over)
        end
    end
    redis.call('XTRIM', stream, 'MINID', first .. '-0')
    redis.call('HSET', about, 'owner', owner, 'caller', caller, 'first', first, 'last', last)
    redis.call('PEXPIRE', stream, keep_events)
    redis.call('PEXPIRE', about, keep_hash)
    return last
end

local answers, at = {}, 4
for i = 1, #KEYS, 2 do
    local first, number, count, over, caller = string.match(ARGV[at], '^(%d+) (%d+) (%d+) (%a+) (.*)$')
    local from, to = at + 1, at + tonumber(count)
    answers[#answers + 1] = append(KEYS[i], KEYS[i + 1], caller, tonumber(first), tonumber(number), over, from, to)
    at = to + 1
end
return table.concat(answers, ' ')
