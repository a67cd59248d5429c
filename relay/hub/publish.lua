-- Publish one event: append it to the topic's Redis stream, trim the stream, and publish it on the channel. Atomic, as a script.
--
-- KEYS  the topic's stream; the index of all topics (a sorted set, scored by the time in ms when each expires)
-- ARGV  the event's SSE fields without the id; the topic's maximum of events; its maximum of bytes; the overhead of an event in
--       bytes; the topic's maximum age in seconds; the maximum number of topics
-- An entry of the stream: b the fields, p the id of the previous event (trimmed or not), o the bytes published so far.
-- Returns the id, or an error that begins with TOPICS where there are too many topics.
local stream, index, body = KEYS[1], KEYS[2], ARGV[1]
local max_events, max_bytes, overhead, seconds, max_topics =
    tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(number) return string.format('%.0f', number) end
local function field(list, name)
    for i = 1, #list, 2 do
        if list[i] == name then return list[i + 1] end
    end
end

local before = '0-0'
if redis.call('EXISTS', stream) == 1 then
    before = field(redis.call('XINFO', 'STREAM', stream), 'last-generated-id')
else
    redis.call('ZREMRANGEBYSCORE', index, '-inf', ms(now))
    if redis.call('ZCARD', index) >= max_topics then return redis.error_reply('TOPICS too many') end
end

local published = #body + overhead
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if newest then published = published + tonumber(field(newest[2], 'o')) end
local id = redis.call('XADD', stream, '*', 'b', body, 'p', before, 'o', ms(published))

redis.call('XTRIM', stream, 'MAXLEN', max_events)
redis.call('XTRIM', stream, 'MINID', ms(now - seconds * 1000))
while true do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if oldest[1] == id then break end
    local kept = published - tonumber(field(oldest[2], 'o')) + #field(oldest[2], 'b') + overhead
    if kept <= max_bytes then break end
    redis.call('XDEL', stream, oldest[1])
end

redis.call('PEXPIRE', stream, ms(seconds * 1000))
redis.call('ZADD', index, ms(now + seconds * 1000), stream)
redis.call('PUBLISH', stream, id .. ' ' .. before .. '\n' .. body)
return id
